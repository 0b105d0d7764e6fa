"""Tests when a base backup is incremental, and that a full one is taken where that cannot be."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.commands.backup.kind import ChosenKind, ParentWish, choose_kind, is_no_block, why_not_since_parent
from wal_pipeline.commands.backup.parent import ParentBackup
from wal_pipeline.errors import BaseBackupError, ParentError, PostgresError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.upkeep_scene import LAYOUT, UpkeepScene

AT = datetime(2026, 11, 22, 2, 15, tzinfo=UTC)
NO_SUMMARIES = "the server keeps no WAL summaries: 'summarize_wal' is 'off', expected 'on'"


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    """Two stores without a base backup."""
    return UpkeepScene(tmp_path)


def chain_of(scene: UpkeepScene, count: int) -> list[BaseBackupManifest]:
    """Store a full base backup, and others each built on the one before."""
    made: list[BaseBackupManifest] = []
    for number in range(1, count + 1):
        at = AT + number * timedelta(days=1)
        made.append(scene.back_up(number, at, parent=made[-1] if made else None))
    return made


def choose(scene: UpkeepScene, wish: ParentWish, *, refused: str | None = None) -> ChosenKind:
    def check(_parent: ParentBackup) -> None:
        if refused is not None:
            raise BaseBackupError(refused)

    folder = scene.folder / "parent"
    folder.mkdir(exist_ok=True)
    places = [ClusterStore(store.inner, LAYOUT) for store in scene.stores.values()]
    return choose_kind(places, wish, check, identities=[], folder=folder)


def test_it_builds_on_the_newest_base_backup(scene: UpkeepScene) -> None:
    """Whose file list is brought here."""
    made = chain_of(scene, 2)
    kind = choose(scene, ParentWish())
    assert kind.parent is not None
    assert (kind.parent.manifest, kind.notes) == (made[-1], ())
    assert kind.parent.backup_manifest.read_bytes() == b"a list"


def test_a_chain_has_no_more_than_so_many(scene: UpkeepScene) -> None:
    """The next one is a full one, and says why; without it a restore would combine more and more of them."""
    made = chain_of(scene, 3)
    assert choose(scene, ParentWish(max_chain=4)).parent is not None
    kind = choose(scene, ParentWish(max_chain=3))
    assert (kind.parent, kind.notes) == (
        None,
        (
            f"a full base backup was taken: '{made[-1].backup_id}' is the last of 3 base backups that build on each "
            "other, of at most 3",
        ),
    )


def test_a_named_parent_is_built_on_all_the_same(scene: UpkeepScene) -> None:
    """A person has chosen it."""
    made = chain_of(scene, 3)
    kind = choose(scene, ParentWish(made[-1].backup_id, max_chain=1))
    assert kind.parent is not None
    assert kind.parent.chain == tuple(one.backup_id for one in made)


def test_without_a_parent_a_full_one_is_taken(scene: UpkeepScene) -> None:
    """The first base backup of a schedule is a full one; who asked for an incremental one alone is told."""
    kind = choose(scene, ParentWish(or_full=True))
    assert (kind.parent, kind.notes) == (
        None,
        (
            "a full base backup was taken: an incremental one cannot be had: no base backup is whole on all stores "
            "with its whole chain, so none can be the parent of an incremental one",
        ),
    )
    with pytest.raises(ParentError):
        choose(scene, ParentWish())


def test_a_server_that_cannot_gives_a_full_one(scene: UpkeepScene) -> None:
    """PostgreSQL 16 and older, and one without summaries."""
    chain_of(scene, 1)
    kind = choose(scene, ParentWish(or_full=True), refused=NO_SUMMARIES)
    assert kind == ChosenKind(None, f"an incremental one cannot be had: {NO_SUMMARIES}")
    with pytest.raises(BaseBackupError, match="summarize_wal"):
        choose(scene, ParentWish(), refused=NO_SUMMARIES)


@pytest.mark.parametrize(
    "words",
    [
        "pg_basebackup: error: could not upload manifest: ERROR:  WAL summaries are required on timeline 1 from "
        "0/6000028 to 0/9000028, but the summaries for that timeline and LSN range are incomplete",
        "ERROR:  WAL summarization is not progressing",
        "ERROR:  manifest requires WAL from initial timeline 2 starting at 0/6000028, but that timeline begins at 0/7",
    ],
)
def test_a_server_that_lacks_what_lies_between_is_told_from_other_failures(words: str) -> None:
    """Only that is mended by a full base backup; a full disk is not."""
    assert why_not_since_parent(BaseBackupError(words)) == f"an incremental one cannot be had: {words}"
    assert why_not_since_parent(PostgresError("could not write to file: No space left on device")) is None


@pytest.mark.parametrize(
    ("message", "is_it"),
    [
        ("pg_basebackup ended with status 1: FATAL:  no pg_hba.conf entry for replication connection from host", True),
        ('FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 0)', True),
        ("ERROR:  WAL summaries are required on timeline 1 from 0/2000028 to 0/6000028, but they are incomplete", True),
        ("no 'pg_basebackup' of PostgreSQL 18 found in /usr/bin", True),
        ("no store took the base backup: r2: the connection was reset", False),
        ("pg_basebackup ended with status 1: the server closed the connection unexpectedly", False),
    ],
)
def test_what_keeps_the_server_from_sending_blocks(message: str, is_it: bool) -> None:
    """Files are compared then; any other failure is none of it, and is told."""
    assert is_no_block(BaseBackupError(message)) is is_it
