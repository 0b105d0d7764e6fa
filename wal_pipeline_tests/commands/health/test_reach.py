"""How far the windows reach by the records and the server's word, and where its word does not count."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.recovery.reach import RecoveryReach
from wal_pipeline.commands.health.facts import HealthFacts
from wal_pipeline.commands.health.reach import ServerLook, look_at_reaches
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, SYSTEM, HealthScene, name
from wal_pipeline_tests.support.server_facts import facts as server_facts

END = Lsn(11 * SIZE)


def asked(scene: HealthScene, **changed: Any) -> RecoveryReach:
    """Return the reach of any store's window by the word of a server that is 100 bytes further."""
    good = server_facts(system_identifier=SYSTEM, server_at=NOW, wal_segment_size=SIZE, wal_lsn=Lsn(END + 100))
    return scene.facts(replace(good, **changed)).reaches[None]


def seen(facts: HealthFacts, look: ServerLook) -> RecoveryReach:
    return look_at_reaches(facts.windows, look, None, NOW)[None]


def test_a_server_that_wrote_no_further_lacks_nothing(scene: HealthScene) -> None:
    """It is at the end of the archived WAL, or before it."""
    assert asked(scene, wal_lsn=END).lacks_nothing
    assert asked(scene, wal_lsn=Lsn(END - 100)).lacks_nothing


def test_a_server_without_a_transaction_since_its_checkpoint_lacks_nothing(scene: HealthScene) -> None:
    """Where that checkpoint lies in the archived WAL; a later one says nothing of the WAL before it."""
    assert asked(scene, idle_since_lsn=Lsn(END - 500)).lacks_nothing
    assert asked(scene, idle_since_lsn=Lsn(END + 50)).rpo_is_bound


def test_wal_that_was_not_read_is_at_most(scene: HealthScene) -> None:
    """Its bytes may hold a commit."""
    reach = asked(scene)
    assert (reach.rpo_seconds, reach.rpo_is_bound, reach.at) == (90.0, True, NOW - timedelta(seconds=90))


@pytest.mark.parametrize(
    ("changed", "why", "rpo"),
    [
        ({"system_identifier": 7}, "the server that answers is another cluster, with system identifier 7", None),
        ({"timeline": 2}, "the server writes timeline 2, and this window follows timeline 1", None),
        ({"in_recovery": True}, "the server that answers is a standby, and its primary was not asked", 90.0),
    ],
)
def test_another_servers_word_proves_nothing(
    scene: HealthScene, changed: dict[str, Any], why: str, rpo: float | None
) -> None:
    """Though it has written nothing beyond. What another cluster or timeline would lose is not known at all."""
    reach = asked(scene, wal_lsn=END, **changed)
    assert (reach.unknown, reach.rpo_seconds, reach.lacks_nothing) == (why, rpo, False)


def test_a_server_that_was_not_asked_or_is_silent_is_at_most(scene: HealthScene) -> None:
    """Each with its reason."""
    facts = scene.facts()
    assert seen(facts, ServerLook()).unknown == "PostgreSQL was not asked"
    silent = seen(facts, ServerLook(error="refused"))
    assert (silent.unknown, silent.rpo_is_bound) == ("PostgreSQL did not answer", True)


def test_a_store_that_lags_lacks_the_first_commit_of_the_next_segment(scene: HealthScene) -> None:
    """By the records; the other store lacks nothing."""
    scene.catalog.files.remove_copy(SYSTEM, [name(9), name(10)], "b2")
    reaches = scene.facts().reaches
    assert reaches["r2"].lacks_nothing
    first_at = NOW - timedelta(minutes=11, seconds=50)
    assert (reaches["b2"].at, reaches["b2"].rpo_seconds, reaches["b2"].rpo_is_bound) == (first_at, 710.0, False)


def test_without_a_window_there_is_no_reach(tmp_path: Path) -> None:
    """WAL alone cannot be restored."""
    scene = HealthScene(tmp_path)
    scene.archive(1, 2)
    assert scene.facts().reaches == {}
