"""A base backup that was cut within a large file: parts that are right are copied, and the file is exactly right."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.cut_backups import PAGE, CutBackups, lsn_of, page
from wal_pipeline_tests.support.manifests import LAYOUT

LARGE = "base/5/16384"
PART = 4 * PAGE
PAGES = 22  # five whole parts and one of two pages
OLD = lsn_of(-1)


def _fill(scene: CutBackups, pages: int = PAGES) -> Path:
    return scene.write(LARGE, b"".join(page(number, OLD) for number in range(pages)))


def _change(file: Path, number: int, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(number * PAGE)
        stream.write(content)


def _age(file: Path, *, by_seconds: int) -> None:
    """Give a file another time than it had."""
    moment = file.stat().st_mtime_ns - by_seconds * 1_000_000_000
    os.utime(file, ns=(moment, moment))


@pytest.fixture
def scene(tmp_path: Path) -> CutBackups:
    """One large file, small ones, and two stores."""
    made = CutBackups(tmp_path)
    _fill(made)
    made.write("base/5/2619", page(1000, OLD) * 2)
    return made


def _require_right(scene: CutBackups, tmp_path: Path, copied: set[int]) -> None:
    """The next base backup copies these parts of the large file, and restores to what is on the disk."""
    taken = scene.take()
    assert taken.copied_parts(LARGE) == copied
    assert scene.restored(taken, tmp_path / "restored") == scene.contents()


def test_all_parts_that_were_stored_are_copied(scene: CutBackups, tmp_path: Path) -> None:
    """The file is unchanged; it was cut while its fourth part was read."""
    scene.cut(3 * PART + 1)
    _require_right(scene, tmp_path, {0, PART, 2 * PART})


def test_a_file_that_was_stored_to_its_end(scene: CutBackups, tmp_path: Path) -> None:
    """Also its last part, which is short."""
    scene.cut(PAGES * PAGE + 1)
    _require_right(scene, tmp_path, {number * PART for number in range(6)})


def test_a_change_in_the_middle(scene: CutBackups, tmp_path: Path) -> None:
    """Only its part is packed anew; the others have no page that is newer than the base backup that was cut."""
    take = scene.cut(4 * PART + 1)
    _change(scene.pgdata / LARGE, 5, page(77, Lsn(lsn_of(take) + 1)))
    _require_right(scene, tmp_path, {0, 2 * PART, 3 * PART})


def test_a_change_that_no_page_tells_of(scene: CutBackups, tmp_path: Path) -> None:
    """As of a hint bit: the checksum tells."""
    scene.cut(4 * PART + 1)
    _change(scene.pgdata / LARGE, 5, page(77, OLD))
    _require_right(scene, tmp_path, {0, 2 * PART, 3 * PART})


def test_a_page_that_was_newer_already(scene: CutBackups, tmp_path: Path) -> None:
    """Where the file has another time now, a part with such a page is not believed, though its checksum is right."""
    _change(scene.pgdata / LARGE, 5, page(77, Lsn(lsn_of(0) + 1)))
    scene.cut(4 * PART + 1)
    _age(scene.pgdata / LARGE, by_seconds=-5)
    _require_right(scene, tmp_path, {0, 2 * PART, 3 * PART})


def test_a_page_that_was_newer_already_in_an_unchanged_file(scene: CutBackups, tmp_path: Path) -> None:
    """Size and time are the same: the checksum is enough."""
    _change(scene.pgdata / LARGE, 5, page(77, Lsn(lsn_of(0) + 1)))
    scene.cut(4 * PART + 1)
    _require_right(scene, tmp_path, {0, PART, 2 * PART, 3 * PART})


@pytest.mark.parametrize("fork", ["_vm", "_fsm"])
def test_a_fork_whose_pages_do_not_tell(scene: CutBackups, tmp_path: Path, fork: str) -> None:
    """A change to a visibility map need not set an LSN: nothing of one with another time is believed."""
    (scene.pgdata / LARGE).rename(scene.pgdata / f"{LARGE}{fork}")
    scene.cut(4 * PART + 1)
    _age(scene.pgdata / f"{LARGE}{fork}", by_seconds=5)
    taken = scene.take()
    assert taken.copied_parts(f"{LARGE}{fork}") == set()
    assert scene.restored(taken, tmp_path / "restored") == scene.contents()


def test_a_file_that_grew(scene: CutBackups, tmp_path: Path) -> None:
    """Its last part was short: it is right where it lies, and what follows begins behind it."""
    scene.cut(PAGES * PAGE + 1)
    with (scene.pgdata / LARGE).open("ab") as stream:
        stream.write(b"".join(page(number, lsn_of(1)) for number in range(200, 207)))
    _require_right(scene, tmp_path, {number * PART for number in range(6)})


@pytest.mark.parametrize("pages", [3, 4, 5, 9])
def test_a_file_that_was_truncated(scene: CutBackups, tmp_path: Path, pages: int) -> None:
    """It may be no longer than one volume now, and than its first part: a whole file has another name in its tar."""
    scene.cut(5 * PART + 1)
    os.truncate(scene.pgdata / LARGE, pages * PAGE)
    _require_right(scene, tmp_path, {place * PART for place in range(pages // 4)} if pages > 4 else set())


def test_a_file_that_was_truncated_to_its_first_part(scene: CutBackups, tmp_path: Path) -> None:
    """Volumes are smaller now, so that it lies in parts: none of them is all of it."""
    scene.cut(5 * PART + 1)
    os.truncate(scene.pgdata / LARGE, PART)
    scene.volume_pages = 3
    _require_right(scene, tmp_path, set())


def test_a_file_with_an_end_that_is_no_page(scene: CutBackups, tmp_path: Path) -> None:
    """As the server leaves it for a moment while it grows: that part is packed anew."""
    with (scene.pgdata / LARGE).open("ab") as stream:
        stream.write(b"x" * 100)
    scene.cut(PAGES * PAGE + 101)
    _require_right(scene, tmp_path, {number * PART for number in range(5)})


@pytest.mark.parametrize("pages", [3, 8, 100])
def test_volumes_of_another_size(scene: CutBackups, tmp_path: Path, pages: int) -> None:
    """Parts keep their sizes, and what lies between them is cut so that it fits."""
    take = scene.cut(4 * PART + 1)
    scene.volume_pages = pages
    _change(scene.pgdata / LARGE, 5, page(77, Lsn(lsn_of(take) + 1)))
    _require_right(scene, tmp_path, {0, 2 * PART, 3 * PART} if pages < PAGES else set())


def test_a_volume_that_one_store_lacks(scene: CutBackups, tmp_path: Path) -> None:
    """Only its part is packed anew."""
    take = scene.cut(4 * PART + 1)
    scene.stores[1].delete(LAYOUT.base_key(scene.backup_id(take), "files.000002.tar.zst"))
    _require_right(scene, tmp_path, {0, PART, 3 * PART})


def test_a_volume_that_one_store_damaged(scene: CutBackups, tmp_path: Path) -> None:
    """Each store must prove its own; the part is read again, and no store is dropped for it."""
    take = scene.cut(4 * PART + 1)
    [path] = (tmp_path / "b2").rglob(f"{scene.backup_id(take)}/files.000001.tar.zst")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    _require_right(scene, tmp_path, {0, 2 * PART, 3 * PART})


def test_an_encrypted_one(scene: CutBackups, tmp_path: Path) -> None:
    """Its index is opened with the identity; without it, nothing is gone on with."""
    identity = pyrage.x25519.Identity.generate()
    scene.encoder = StreamEncoder(Codec.GZIP, recipients=[str(identity.to_public())])
    take = scene.cut(4 * PART + 1)
    assert all(name.endswith(ENCRYPTED_SUFFIX) for name in scene.keys(take))
    taken = scene.take()
    assert taken.copied == {}
    scene.identities = [identity]
    _require_right(scene, tmp_path, {number * PART for number in range(6)})


def test_one_that_went_on_with_another_and_was_cut_too(scene: CutBackups, tmp_path: Path) -> None:
    """The third takes what the second had copied, and the rest from the first."""
    first = scene.cut(4 * PART + 1)
    second = scene.cut(PART + 1)
    taken = scene.take()
    homes = {
        place: taken.copied[part.volume] for part in taken.files[LARGE].parts if (place := part.offset_bytes) < 4 * PART
    }
    assert homes[0].startswith(scene.backup_id(second))
    assert {homes[place].partition("/")[0] for place in (PART, 2 * PART, 3 * PART)} == {scene.backup_id(first)}
    assert scene.restored(taken, tmp_path / "restored") == scene.contents()


def test_news_is_told_once_in_a_while(scene: CutBackups, tmp_path: Path) -> None:
    """By the number of volumes: a cut loses less than four."""
    scene.every_volume = False
    scene.cut(5 * PART + 1)
    _require_right(scene, tmp_path, {number * PART for number in range(4)})


@dataclass(frozen=True)
class Change:
    """A change to a large file: its kind, the page where it is, and how many pages."""

    kind: str
    at: int
    count: int


CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from(["write", "hint", "append", "truncate", "touch", "zero", "copy_back"]),
        st.integers(0, 29),
        st.integers(1, 6),
    ),
    max_size=4,
)


def _apply(file: Path, change: Change, salt: int, newer: Lsn) -> None:
    pages = file.stat().st_size // PAGE
    if change.kind == "append":
        with file.open("ab") as stream:
            stream.write(b"".join(page(salt + number, newer) for number in range(change.count)))
    elif change.kind == "truncate":
        os.truncate(file, min(change.at, pages) * PAGE)
    elif change.kind == "touch":
        _age(file, by_seconds=change.count)
    elif change.at < pages:
        lsn = newer if change.kind == "write" else OLD
        before, content = file.stat(), b"" if change.kind == "copy_back" else page(salt, lsn)
        if change.kind == "copy_back":
            content = file.read_bytes()[: change.count * PAGE]  # the same bytes at another place
        _change(file, change.at, bytes(PAGE) if change.kind == "zero" else content)
        if change.kind == "hint":  # behind its time
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pages=st.integers(5, 30),
    cuts=st.lists(st.tuples(st.integers(1, 30), CHANGES, st.sampled_from([3, 4, 4, 4, 7])), min_size=1, max_size=3),
    lost=st.lists(st.integers(0, 8), max_size=2),
)
def test_the_restored_file_is_what_the_disk_had(
    pages: int, cuts: list[tuple[int, list[Change], int]], lost: list[int]
) -> None:
    """Whatever changed between base backups that were cut anywhere, and whatever volumes one store has lost."""
    with tempfile.TemporaryDirectory() as folder:
        scene = CutBackups(Path(folder))
        file = _fill(scene, pages)
        for salt, (after_pages, changes, volume_pages) in enumerate(cuts):
            size_bytes = sum(one.stat().st_size for one in scene.pgdata.rglob("*") if one.is_file())
            take = scene.cut(min(after_pages * PAGE, size_bytes))
            for number in lost:
                scene.stores[1].delete(LAYOUT.base_key(scene.backup_id(take), f"files.{number:06d}.tar.zst"))
            for place, change in enumerate(changes):
                _apply(file, change, (salt + 1) * 10_000 + place * 100, Lsn(lsn_of(take) + 1))
            scene.volume_pages = volume_pages
        taken = scene.take()
        assert scene.restored(taken, Path(folder, "restored")) == scene.contents()
