"""Which clusters' WAL is accepted under one name."""

from pathlib import Path

import pytest

from wal_pipeline.commands.cluster_identity import ClusterIdentity, adopt_first_segment
from wal_pipeline_tests.support.archive_scene import ArchiveScene
from wal_pipeline_tests.support.segments import (
    OTHER_SYSTEM_IDENTIFIER,
    SYSTEM_IDENTIFIER,
    name_of,
    segment_bytes,
    spool_segments,
)


def identity(scene: ArchiveScene, server: int | None, fixed: int | None = None) -> ClusterIdentity:
    made = ClusterIdentity(scene.catalog, lambda: server, scene.clock, fixed=fixed)
    made.refresh()
    return made


def test_the_server_is_asked_first(scene: ArchiveScene) -> None:
    """Its answer is remembered."""
    assert identity(scene, SYSTEM_IDENTIFIER).current == SYSTEM_IDENTIFIER
    assert scene.catalog.system_identifiers.known() == [SYSTEM_IDENTIFIER]


def test_without_a_server_the_known_one_counts(scene: ArchiveScene) -> None:
    """What an earlier run learnt is enough while the server is down."""
    identity(scene, SYSTEM_IDENTIFIER)
    later = identity(scene, None)
    assert (later.current, later.accepted) == (SYSTEM_IDENTIFIER, {SYSTEM_IDENTIFIER})


def test_after_an_upgrade_both_are_accepted(scene: ArchiveScene) -> None:
    """WAL of the old cluster may still wait; files without a header belong to the new one."""
    identity(scene, SYSTEM_IDENTIFIER)
    later = identity(scene, OTHER_SYSTEM_IDENTIFIER)
    assert later.current == OTHER_SYSTEM_IDENTIFIER
    assert later.accepted == {SYSTEM_IDENTIFIER, OTHER_SYSTEM_IDENTIFIER}


def test_a_data_directory_of_before_an_upgrade(scene: ArchiveScene) -> None:
    """It is believed where nothing else is known, is never sure, and does not make the old cluster current again."""

    def look(server: int | None) -> ClusterIdentity:
        made = ClusterIdentity(
            scene.catalog, lambda: server, scene.clock, fixed=None, read_folder=lambda: SYSTEM_IDENTIFIER
        )
        made.refresh()
        return made

    assert (look(None).current, look(None).is_sure) == (SYSTEM_IDENTIFIER, False)
    assert (look(OTHER_SYSTEM_IDENTIFIER).current, look(OTHER_SYSTEM_IDENTIFIER).is_sure) == (
        OTHER_SYSTEM_IDENTIFIER,
        True,
    )
    assert look(None).current == OTHER_SYSTEM_IDENTIFIER


def test_the_setting_is_the_only_one(scene: ArchiveScene) -> None:
    """Neither the server nor what was known adds another."""
    identity(scene, SYSTEM_IDENTIFIER)
    made = identity(scene, SYSTEM_IDENTIFIER, fixed=OTHER_SYSTEM_IDENTIFIER)
    assert (made.current, made.accepted) == (OTHER_SYSTEM_IDENTIFIER, {OTHER_SYSTEM_IDENTIFIER})


@pytest.mark.parametrize(
    ("server", "sure"), [(SYSTEM_IDENTIFIER, True), (OTHER_SYSTEM_IDENTIFIER, False), (None, False)]
)
def test_the_setting_alone_is_not_sure(scene: ArchiveScene, server: int | None, sure: bool) -> None:
    """It may be that of before an upgrade: only where the live server has the same, other WAL is moved away."""
    made = identity(scene, server, fixed=SYSTEM_IDENTIFIER)
    contradicted = server == OTHER_SYSTEM_IDENTIFIER
    assert (made.current, made.is_sure, made.contradiction is not None) == (SYSTEM_IDENTIFIER, sure, contradicted)
    assert made.of_unnamed == (None if contradicted else SYSTEM_IDENTIFIER)


def test_nothing_is_known(scene: ArchiveScene) -> None:
    """Before the first segment no cluster is accepted."""
    made = identity(scene, None)
    assert (made.current, made.accepted) == (None, frozenset())


@pytest.mark.parametrize("first", [b"", bytes(1 << 20), segment_bytes(9), segment_bytes(1)[: 1 << 19]])
def test_the_first_whole_segment_decides(scene: ArchiveScene, first: bytes) -> None:
    """Empty, zeroed, renamed and half files before it tell nothing, not even where half a file has a good header."""
    (scene.spool_folder / name_of(1)).write_bytes(first)
    spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    scene.settle()
    made = identity(scene, None)
    assert adopt_first_segment(scene.spool, scene.spool.scan(scene.clock()).ready, made)
    assert made.current == OTHER_SYSTEM_IDENTIFIER


def test_no_segment_decides_nothing(scene: ArchiveScene, tmp_path: Path) -> None:
    """With none that is whole, the cluster stays unknown."""
    made = identity(scene, None)
    assert not adopt_first_segment(scene.spool, scene.spool.scan(scene.clock()).ready, made)
    assert made.current is None
