"""What a base backup that was cut has stored is believed only where all stores have it, and its index is readable."""

from pathlib import Path

from wal_pipeline.commands.backup.local.resume.find import find_unfinished
from wal_pipeline_tests.support.cut_backups import PAGE, CutBackups, lsn_of, page

LARGE, SMALL = "base/5/16384", [f"base/5/{number}" for number in (1, 2, 3, 4)]
OLD = lsn_of(-1)


def _scene(folder: Path) -> CutBackups:
    scene = CutBackups(folder)
    for number, path in enumerate(SMALL):
        scene.write(path, page(number, OLD))
    scene.write(LARGE, b"".join(page(number, OLD) for number in range(10, 30)))
    return scene


def test_what_is_told_is_found(tmp_path: Path) -> None:
    """Whole files in one volume, and the parts of one that is larger."""
    scene = _scene(tmp_path)
    take = scene.cut(24 * PAGE + 1)
    [found] = find_unfinished(scene.places, scene.encoder, [])
    assert (found.backup_id, found.start_lsn) == (scene.backup_id(take), lsn_of(take))
    assert {path for path in found.files if path.startswith("base/")} == set(SMALL)
    assert [part.offset_bytes for part in found.large[LARGE].parts] == [number * 4 * PAGE for number in range(5)]


def test_an_index_that_cannot_be_read_leaves_the_older_ones(tmp_path: Path) -> None:
    """Only what the damaged one stored is lost."""
    scene = _scene(tmp_path)
    first, second = scene.cut(12 * PAGE + 1), scene.cut(8 * PAGE + 1)
    assert [one.backup_id for one in find_unfinished(scene.places, scene.encoder, [])] == [
        scene.backup_id(second),
        scene.backup_id(first),
    ]
    for path in tmp_path.rglob(f"{scene.backup_id(second)}/file_index.part.*.zst"):
        path.write_bytes(path.read_bytes()[:-9])
    assert [one.backup_id for one in find_unfinished(scene.places, scene.encoder, [])] == [scene.backup_id(first)]
    taken = scene.take()
    assert taken.copied_parts(LARGE) == {0, 4 * PAGE, 8 * PAGE}


def test_a_volume_that_holds_an_older_state_of_a_file_is_not_copied_twice(tmp_path: Path) -> None:
    """Its copy would come behind the newer state, and win where a person opens the volumes in their order."""
    scene = _scene(tmp_path)
    scene.write(LARGE, b"")
    first = scene.cut(4 * PAGE + 1)
    scene.write(SMALL[1], page(99, OLD))
    second = scene.cut(4 * PAGE + 1)
    unfinished = find_unfinished(scene.places, scene.encoder, [])
    assert [one.backup_id for one in unfinished] == [scene.backup_id(second), scene.backup_id(first)]
    assert {path for path in unfinished[0].files if path.startswith("base/")} == {SMALL[1]}
    assert set(SMALL) <= unfinished[1].files.keys()
    taken = scene.take()
    places = {path: taken.files[path].parts[0].volume for path in SMALL}
    assert places[SMALL[0]] in taken.copied
    assert places[SMALL[1]] > places[SMALL[0]]
    assert scene.restored(taken, tmp_path / "restored") == scene.contents()
