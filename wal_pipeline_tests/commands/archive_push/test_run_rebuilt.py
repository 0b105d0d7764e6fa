"""Tests that archiving after a rebuild of the catalog trusts no copy that was not read."""

from pathlib import Path

import pytest

from wal_pipeline.commands.archive_push.events import FileQuarantined
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.stores.base import Body
from wal_pipeline_tests.support.archive_scene import CLUSTER, ArchiveScene, contents, fail, nothing
from wal_pipeline_tests.support.segments import name_of, segment_bytes, spool_segments


@pytest.fixture
def scene(tmp_path: Path) -> ArchiveScene:
    """A segment that r2 has and b2 lacks, and that is still in the spool."""
    scene = ArchiveScene(tmp_path)
    spool_segments(scene.spool_folder, [1])
    scene.stores["b2"].before = fail("b2")
    scene.run()
    scene.settle()
    scene.stores["b2"].before = nothing
    return scene


def lose_and_rebuild(scene: ArchiveScene) -> None:
    scene.lose_catalog()
    rebuild(list(scene.stores.values()), scene.catalog, "", CLUSTER)


def test_a_copy_that_a_rebuild_knows_by_its_size_is_read_before_the_spool_lets_go(scene: ArchiveScene) -> None:
    """A store flipped a bit and the run died before its read-back: the copy is stored again from the spool."""
    r2 = scene.stores["r2"].inner
    [listed] = r2.list("")
    described = r2.head(listed.key)
    assert described is not None
    with r2.open(listed.key) as stream:
        stored = bytearray(stream.read())
    stored[len(stored) // 2] ^= 1
    r2.delete(listed.key)
    r2.put_if_absent(listed.key, Body.of(bytes(stored)), described.metadata)
    lose_and_rebuild(scene)
    scene.run()
    assert scene.spooled() == []
    assert contents(scene.stores["r2"]) == contents(scene.stores["b2"]) == {name_of(1): segment_bytes(1)}


def test_other_content_is_refused_on_every_store_where_a_rebuild_found_the_name_on_one(scene: ArchiveScene) -> None:
    """The store that lacks the file does not get the wrong one: the two stores never differ."""
    lose_and_rebuild(scene)
    spool_segments(scene.spool_folder, [1], variant=1)
    events = scene.run()
    assert [event.name for event in events if isinstance(event, FileQuarantined)] == [name_of(1)]
    assert contents(scene.stores["r2"]) == {name_of(1): segment_bytes(1)}
    assert contents(scene.stores["b2"]) == {}
