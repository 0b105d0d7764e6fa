"""The answer of all screens says what can be recovered, from where, and no more than was looked at."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from wal_pipeline.commands.health.answer import StoreAnswer, answer_rows, gap_text, recovery_answer, store_answer
from wal_pipeline.commands.health.facts import look_without_catalog
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.health_scene import SYSTEM, HealthScene, name


def test_both_stores_have_everything(scene: HealthScene) -> None:
    """One sentence, with the moment and the stores."""
    facts = scene.facts()
    assert recovery_answer(facts) == (
        "main can be recovered to 2026-11-22 11:58:30 UTC from r2 and b2, nothing committed since"
    )
    assert store_answer(facts, "b2") == (
        "from b2 each moment from 2026-11-22 11:00:00 to 2026-11-22 11:58:30 UTC can be restored, "
        "nothing committed since"
    )


def test_one_store_lags(scene: HealthScene) -> None:
    """The sentence says which, and how far it reaches."""
    scene.catalog.files.remove_copy(SYSTEM, [name(9), name(10)], "b2")
    facts = scene.facts()
    assert recovery_answer(facts) == (
        "main can be recovered to 2026-11-22 11:58:30 UTC from r2, nothing committed since; "
        "from b2 to 2026-11-22 11:38:30 UTC only"
    )
    assert store_answer(facts, "b2").endswith("can be restored, the commits of the last 12 min are not there yet")


def test_one_store_has_no_base_backup(scene: HealthScene) -> None:
    """Nothing can be restored from there alone."""
    scene.catalog.base_backups.remove_copy(SYSTEM, scene.catalog.base_backups.all()[0].backup_id, "b2")
    facts = scene.facts()
    assert recovery_answer(facts).endswith(" from r2, nothing committed since; from b2 nothing")
    assert store_answer(facts, "b2") == "nothing can be restored from b2: no base backup is recorded there"


def test_only_both_together_reach_the_end(scene: HealthScene) -> None:
    """A base backup on one, the last segments on the other."""
    scene.catalog.files.remove_copy(SYSTEM, [name(10)], "r2")
    scene.catalog.files.remove_copy(SYSTEM, [name(9)], "b2")
    assert recovery_answer(scene.facts()) == (
        "main can be recovered to 2026-11-22 11:58:30 UTC from r2 and b2 together, nothing committed since; "
        "from r2 to 2026-11-22 11:48:30 UTC only; from b2 to 2026-11-22 11:38:30 UTC only"
    )


def test_a_silent_server_is_said(scene: HealthScene) -> None:
    """What was not looked at is at most, with the reason."""
    facts = scene.facts()
    facts = replace(
        facts, reaches={None: replace(facts.reaches[None], rpo_seconds=1752.0, rpo_is_bound=True, unknown="-")}
    )
    assert recovery_answer(facts).endswith(" from r2 and b2, at most the last 29 min are missing (-)")


def test_nothing_can_be_recovered(tmp_path: Path) -> None:
    """An empty catalog says nothing of the stores; WAL without a base backup does."""
    scene = HealthScene(tmp_path)
    assert recovery_answer(scene.facts()) == (
        "this host has no records of main: whether it can be recovered was not looked at; "
        "'wal-pipeline catalog rebuild' asks the stores"
    )
    scene.archive(1, 2)
    assert recovery_answer(scene.facts()) == "main cannot be recovered: no base backup is recorded on any store"
    scene.back_up(5)
    assert recovery_answer(scene.facts()) == (
        "main cannot be recovered: 1 base backup recorded, and none has all the WAL that it needs on any store"
    )


def test_a_catalog_that_does_not_answer_is_not_an_archive_that_cannot_be_recovered(scene: HealthScene) -> None:
    """The records were not looked at."""
    facts = look_without_catalog(scene.sources, "main", CatalogError("down"))
    assert recovery_answer(facts) == "whether main can be recovered is not known: the records cannot be read"


def test_the_table_has_a_row_for_any_store_and_for_each(scene: HealthScene) -> None:
    """In people's units; past and open gaps are counted apart."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5), name(8)], "b2")
    scene.back_up(6, timedelta(minutes=30))
    assert answer_rows(scene.facts())[1:] == [
        StoreAnswer("r2", "2026-11-22 11:00:00", "2026-11-22 11:58:30", "0 s", "none", "2", "9", "574.1 MiB"),
        StoreAnswer(
            "b2", "2026-11-22 11:30:00", "2026-11-22 11:30:00", "22 min", "1 open, 1 past", "2", "2", "573.7 MiB"
        ),
    ]
    assert answer_rows(scene.facts())[0].store == "any store"


def test_a_gap_says_its_moments_and_its_cure(scene: HealthScene) -> None:
    """Refillable from another store, or on none."""
    scene.catalog.files.remove_copy(SYSTEM, [name(5), name(6)], "b2")
    [gap] = scene.facts().windows.open_gaps("b2")
    assert gap_text(gap) == "from 2026-11-22 10:58:30 to 11:28:10, 2 segments, refillable from r2"
    scene.catalog.files.remove_copy(SYSTEM, [name(5)], "r2")
    [gap] = scene.facts().windows.open_gaps("b2")
    assert gap_text(gap).endswith("2 segments, 1 of them refillable from r2")
    [gap] = scene.facts().windows.open_gaps(None)
    assert gap_text(gap).endswith("1 segment, on no store")
