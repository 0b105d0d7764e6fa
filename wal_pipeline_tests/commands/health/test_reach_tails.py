"""The reach of windows that end in pieces, from the catalog's records of what was shipped."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import describe
from wal_pipeline.commands.health.reach import Reaches, ServerLook, look_at_reaches
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail, put_tail
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.health_scene import NOW, SIZE, SYSTEM, HealthScene, name
from wal_pipeline_tests.support.pieces import cut, with_commits
from wal_pipeline_tests.support.server_facts import facts as server_facts

DATA = bytes(range(256)) * (SIZE // 256)
OPEN = 11  # the archive has segments 1 to 10
FLUSHED_AT = NOW - timedelta(seconds=20)
COMMIT_AT = NOW - timedelta(seconds=25)


@pytest.fixture
def scene(tmp_path: Path) -> HealthScene:
    """Ten segments on both stores with a base backup; the open one shipped further to r2 than to b2."""
    made = HealthScene(tmp_path)
    made.archive(*range(1, 11))
    made.back_up(2)
    ship(made, "r2", 0, 100_000, 200_000)
    ship(made, "b2", 0, 100_000)
    return made


def ship(scene: HealthScene, store: str, *places: int) -> None:
    """Record pieces of the open segment, each with a commit a second after the one before it."""
    encoding = describe(b"x", Codec.ZSTD, encrypted=False).encoding
    pieces = cut(name(OPEN), DATA, places, system_identifier=SYSTEM, wal_segment_size=SIZE, flushed_at=FLUSHED_AT)
    times = [COMMIT_AT + timedelta(seconds=number) for number in range(len(pieces))]
    recorded = tuple(
        RecordedPiece(with_commits(piece, at, at), encoding) for piece, at in zip(pieces, times, strict=True)
    )
    nothing = ShippedTail(store, SYSTEM, 1, (), None, None, None, None, None, None)
    put_tail(scene.catalog.values, replace(nothing, pieces=recorded))


def reaches(scene: HealthScene, wal_lsn: int | None) -> Reaches:
    """Look with a server that has written so far; None: it was not asked."""
    server = None if wal_lsn is None else server_facts(wal_lsn=Lsn(wal_lsn), system_identifier=SYSTEM, server_at=NOW)
    return look_at_reaches(scene.facts().windows, ServerLook(server), None, NOW)


def test_windows_end_where_the_pieces_end(scene: HealthScene) -> None:
    """Each store's own, and the further one together."""
    windows = scene.facts().windows
    ends = {store: window.latest_lsn for store in (None, "r2", "b2") if (window := windows.main(store)) is not None}
    assert ends == {None: OPEN * SIZE + 200_000, "r2": OPEN * SIZE + 200_000, "b2": OPEN * SIZE + 100_000}
    assert windows.latest_commit_at == COMMIT_AT + timedelta(seconds=1)


def test_a_server_that_wrote_nothing_beyond_the_pieces_loses_nothing(scene: HealthScene) -> None:
    """The other store lacks the commit of the piece that it does not have."""
    found = reaches(scene, OPEN * SIZE + 200_000)
    assert found["r2"].lacks_nothing
    assert (found["b2"].rpo_seconds, found["b2"].rpo_is_bound) == (24.0, False)


def test_a_server_that_wrote_more_loses_at_most_what_was_not_flushed_then(scene: HealthScene) -> None:
    """The last piece holds all that was acknowledged when it was cut."""
    found = reaches(scene, OPEN * SIZE + 200_001)
    assert (found["r2"].at, found["r2"].rpo_seconds, found["r2"].rpo_is_bound) == (
        FLUSHED_AT + timedelta(seconds=1),
        19.0,
        True,
    )
    assert reaches(scene, None)["r2"].rpo_is_bound


def test_pieces_of_an_archived_segment_say_nothing_more(scene: HealthScene) -> None:
    """They are superseded, whether or not they are gone."""
    scene.archive(*range(1, 12))
    window = scene.facts().windows.main("r2")
    assert window is not None
    assert (window.latest_lsn, window.tails) == ((OPEN + 1) * SIZE, ())
