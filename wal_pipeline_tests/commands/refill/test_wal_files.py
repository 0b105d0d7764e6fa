"""A store that lacks copies gets them: from the spool, from another store, and never from what is not proved."""

from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.archive_push.events import CopyFailed, CopyVerified
from wal_pipeline.errors import InvalidWalNameError
from wal_pipeline_tests.support.archive_scene import ArchiveScene, contents, fail, nothing
from wal_pipeline_tests.support.segments import OTHER_SYSTEM_IDENTIFIER, name_of, segment_bytes, spool_segments

Found = list[CopyVerified | CopyFailed]


def archive_on_r2(scene: ArchiveScene, *numbers: int, **options: int) -> dict[str, bytes]:
    """Archive segments on r2 alone and take them out of the spool."""
    made = spool_segments(scene.spool_folder, numbers, **options)
    scene.stores["b2"].before = fail("b2")
    scene.run()
    scene.stores["b2"].before = nothing
    for name in made:
        (scene.spool_folder / name).unlink()
    return made


def refill(scene: ArchiveScene, *names: str, store: str = "b2") -> Found:
    return list(scene.refiller().refill(names, [store]))


def messages(found: Found) -> list[str]:
    return [event.message for event in found if isinstance(event, CopyFailed)]


def test_from_another_store(scene: ArchiveScene) -> None:
    """The stored bytes are copied as they are, in WAL order, recorded and told."""
    made = archive_on_r2(scene, 1, 2, 3)
    found = refill(scene, *sorted(made, reverse=True))
    assert [event.file.name for event in found if isinstance(event, CopyVerified)] == sorted(made)
    assert contents(scene.stores["b2"]) == made
    assert sorted(scene.stores["b2"].created) == sorted(scene.stores["r2"].created)
    assert scene.verified("b2") == set(made)


def test_from_the_spool(scene: ArchiveScene) -> None:
    """A file that is still in the spool is taken from there; it stays for the archiving run to release."""
    made = spool_segments(scene.spool_folder, [1])
    assert messages(refill(scene, *made)) == []
    assert contents(scene.stores["b2"]) == made
    assert contents(scene.stores["r2"]) == {}
    assert scene.spooled() == sorted(made)


def test_twice_is_once(scene: ArchiveScene) -> None:
    """What is there is proved and not stored again, whatever the codec is by now."""
    made = archive_on_r2(scene, 1)
    refill(scene, *made)
    scene.codec = Codec.NONE
    spool_segments(scene.spool_folder, [1])
    assert messages(refill(scene, *made)) == []
    assert len(scene.stores["b2"].created) == 1
    assert contents(scene.stores["b2"]) == made


def test_a_damaged_copy_is_mended_from_the_other_store(scene: ArchiveScene) -> None:
    """A copy whose bytes changed is replaced; the source's bytes were checked before."""
    made = archive_on_r2(scene, 1)
    refill(scene, *made)
    flip(scene.folder / "b2" / "objects" / scene.stores["b2"].created[0])
    assert messages(refill(scene, *made)) == []
    assert contents(scene.stores["b2"]) == made


def test_a_damaged_source_is_not_copied(scene: ArchiveScene) -> None:
    """Where the only other copy is damaged nothing is stored, and the file is named."""
    made = archive_on_r2(scene, 1)
    flip(scene.folder / "r2" / "objects" / scene.stores["r2"].created[0])
    (message,) = messages(refill(scene, *made))
    assert message.startswith(f"b2: '{name_of(1)}' has no copy that can be read: r2: object ")
    assert contents(scene.stores["b2"]) == {}


def test_a_file_that_nobody_has(scene: ArchiveScene) -> None:
    """One lost file is told, and the others are copied all the same."""
    made = archive_on_r2(scene, 1, 3)
    found = refill(scene, name_of(1), name_of(2), name_of(3))
    assert messages(found) == [f"b2: '{name_of(2)}' cannot be copied: neither the spool nor any store has it"]
    assert contents(scene.stores["b2"]) == made


@pytest.mark.parametrize("content", [segment_bytes(1)[:5000], segment_bytes(2), segment_bytes(1, variant=1)])
def test_a_spool_file_that_is_not_the_archives(scene: ArchiveScene, content: bytes) -> None:
    """Half a file, a renamed one or other content in the spool is passed over for the copy that is known good."""
    made = archive_on_r2(scene, 1)
    (scene.spool_folder / name_of(1)).write_bytes(content)
    assert messages(refill(scene, name_of(1))) == []
    assert contents(scene.stores["b2"]) == made


def test_a_store_that_is_down(scene: ArchiveScene) -> None:
    """The target's own failure is a failed copy for each file, and nothing is recorded as there."""
    made = archive_on_r2(scene, 1, 2)
    scene.stores["b2"].before = fail("b2")
    assert messages(refill(scene, *made)) == ["b2: cannot list: it is down"] * 2
    assert scene.verified("b2") == set()


def test_a_lost_catalog(scene: ArchiveScene) -> None:
    """The stores are the truth: a refill needs no record of the file, and adopts what the target has alone."""
    made = archive_on_r2(scene, 1)
    scene.lose_catalog()
    assert messages(refill(scene, *made)) == []
    assert messages(refill(scene, *made, store="r2")) == []
    assert scene.verified("b2") == scene.verified("r2") == set(made)


def test_an_old_clusters_files(scene: ArchiveScene) -> None:
    """Files from before an upgrade are found under the system identifier that they had."""
    made = archive_on_r2(scene, 1)
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    assert messages(refill(scene, *made)) == []
    assert contents(scene.stores["b2"]) == made


def test_a_name_that_is_not_postgresqls(scene: ArchiveScene) -> None:
    """It is refused before anything is copied."""
    with pytest.raises(InvalidWalNameError, match=r"'\.\./evil' is not the name of a file of the WAL archive"):
        refill(scene, "../evil")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
