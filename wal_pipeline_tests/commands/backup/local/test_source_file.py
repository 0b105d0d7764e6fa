"""What happens to a file while it is read is handled as PostgreSQL's basebackup.c handles it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest

from wal_pipeline.archive.format.base_backup.file_index import FilePart
from wal_pipeline.commands.backup.local.source_file import READ_BYTES, open_source
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.packed_folder import STARTED, PackedFolder

PAGE = 8192
LARGE = os.urandom(3 * READ_BYTES)
MOMENTS = [0, 1, 2]  # before the first byte, after the first chunk, after the second


def _changed(
    folder: Path, moment: int, change: Callable[[Path], object], *, volume_size_bytes: int = 1 << 30
) -> tuple[dict[str, bytes], int]:
    """Pack a large file that is changed at a moment, and check its place in the index.

    Return what was stored, and how many bytes were read before the change.
    """
    scene = PackedFolder(folder, volume_size_bytes)
    file, changed_after = scene.file("base/5/1", LARGE), []

    def at_moment(read_bytes: int) -> None:
        if not changed_after and read_bytes >= moment * READ_BYTES:
            changed_after.append(read_bytes)
            change(file.source)

    if moment == 0:
        at_moment(0)
    scene.on_read = at_moment
    found = scene.pack([file])
    for path, content in found.items():
        indexed = scene.packed.files[path]
        assert (indexed.size_bytes, indexed.crc32c) == (len(content), f"{google_crc32c.value(content):08x}")
        offset = 0
        for part in indexed.parts:
            piece = content[offset : offset + part.size_bytes]
            assert (part.offset_bytes, part.crc32c) == (offset, f"{google_crc32c.value(piece):08x}")
            offset += part.size_bytes
    return found, changed_after[0]


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 5 * READ_BYTES)


@pytest.mark.parametrize("volume_size_bytes", [1 << 30, READ_BYTES, PAGE * 100])
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_grows_is_read_up_to_its_size_when_it_was_opened(
    tmp_path: Path, moment: int, volume_size_bytes: int
) -> None:
    """Whole or in parts: growth before the opening is read, growth after it is left to the replay of WAL."""
    found, _ = _changed(tmp_path, moment, _append, volume_size_bytes=volume_size_bytes)
    assert found["base/5/1"] == (LARGE if moment else LARGE + b"x" * 5 * READ_BYTES)


@pytest.mark.parametrize("volume_size_bytes", [1 << 30, READ_BYTES, PAGE * 100])
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_cut_is_filled_with_zeros(tmp_path: Path, moment: int, volume_size_bytes: int) -> None:
    """The size was promised in the tar's header; a file that is cut before it is opened is as short as it is."""
    keep = READ_BYTES + 5
    found, read = _changed(tmp_path, moment, lambda path: os.truncate(path, keep), volume_size_bytes=volume_size_bytes)
    kept = LARGE[: max(keep, read)]
    assert found["base/5/1"] == (kept + bytes(len(LARGE) - len(kept)) if moment else kept)


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_cut_to_nothing_is_zeros_or_empty(tmp_path: Path, moment: int) -> None:
    """As a relation whose table was truncated: PostgreSQL keeps its file, empty, for a while."""
    found, read = _changed(tmp_path, moment, lambda path: os.truncate(path, 0))
    assert found["base/5/1"] == (LARGE[:read] + bytes(len(LARGE) - read) if moment else b"")


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_vanishes_is_left_out_or_read_to_its_end(tmp_path: Path, moment: int) -> None:
    """A dropped relation that is open can be read; one that is not is in no volume and not in the index."""
    found, _ = _changed(tmp_path, moment, Path.unlink)
    assert found == ({"base/5/1": LARGE} if moment else {})


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_replaced_is_one_of_both_and_no_mixture(tmp_path: Path, moment: int) -> None:
    """pg_filenode.map and configuration files are replaced by a rename, with another size."""
    new = tmp_path / "new"
    new.write_bytes(b"longer" * READ_BYTES)
    found, _ = _changed(tmp_path, moment, new.replace)
    assert found["base/5/1"] == (LARGE if moment else b"longer" * READ_BYTES)


def test_a_bundle_of_files_that_all_vanished_is_no_volume(tmp_path: Path) -> None:
    """Numbers of volumes have no hole, and no volume is empty."""
    scene = PackedFolder(tmp_path, volume_size_bytes=PAGE)
    files = [scene.file(f"base/{database}/{n}", bytes(PAGE)) for database in (1, 5) for n in range(4)]
    for file in files[:4]:
        file.source.unlink()
    assert set(scene.pack(files)) == {file.path for file in files[4:]}
    assert [volume.item.name for volume in scene.packed.volumes()] == [f"files.00000{n}.tar" for n in range(4)]


def test_a_small_file_that_grew_beyond_a_volume_gets_volumes_of_its_own(tmp_path: Path) -> None:
    """The others of its bundle stay together, before and after it."""
    scene = PackedFolder(tmp_path, volume_size_bytes=4 * PAGE)
    files = [scene.file(f"base/5/{n}", bytes([n]) * PAGE) for n in (1, 2, 3)]
    files[1].source.write_bytes(b"g" * 9 * PAGE)
    found = scene.pack(files)
    assert found["base/5/2"] == b"g" * 9 * PAGE
    assert [part.size_bytes // PAGE for part in scene.packed.files["base/5/2"].parts] == [4, 4, 1]
    assert {len(found["base/5/1"]), len(found["base/5/3"])} == {PAGE}


def test_a_damaged_page_is_reported_and_stored_as_it_is(tmp_path: Path) -> None:
    """The other pages are new; the damaged one has a place that no checksum fits."""
    scene = PackedFolder(tmp_path)
    damaged = bytearray(20 * PAGE)
    damaged[7 * PAGE : 8 * PAGE] = b"\x01" * PAGE
    file = scene.file("base/5/16384", bytes(damaged), relation=True)
    assert scene.pack([file])["base/5/16384"] == damaged
    [pages] = scene.packed.damaged_pages(Lsn.parse("0/6000000"))
    assert (pages.file, pages.blocks, pages.total) == ("base/5/16384", (7,), 1)


def test_a_torn_page_is_read_again(tmp_path: Path) -> None:
    """The second reading finds the page whole: it is stored whole, and nothing is damaged."""
    scene = PackedFolder(tmp_path)
    torn = bytes(8) + b"\x01" * (PAGE - 8)  # its LSN is older than the base backup's start
    file = scene.file("base/5/16384", torn + bytes(PAGE), relation=True)
    source = open_source(file, STARTED)
    assert source is not None
    with source:
        chunks = source.chunks(source.size_bytes)
        read_again = source._pread

        def mended(size_bytes: int, offset: int) -> bytes:
            data = read_again(size_bytes, offset)
            file.source.write_bytes(bytes(2 * PAGE))
            return data

        source._pread = mended  # type: ignore[method-assign]
        assert b"".join(chunks) == bytes(2 * PAGE)
        assert source.check is not None
        assert source.check.damaged_blocks(Lsn.parse("0/6000000")) == ()
        assert source.crc32c == f"{google_crc32c.value(bytes(2 * PAGE)):08x}"


def test_a_relation_with_half_a_page_at_its_end_is_named(tmp_path: Path) -> None:
    """Its bytes are stored; that their checksums were not verified is said."""
    scene = PackedFolder(tmp_path)
    file = scene.file("base/5/16384", bytes(PAGE + 100), relation=True)
    assert scene.pack([file]) == {"base/5/16384": bytes(PAGE + 100)}
    assert scene.packed.unchecked == ["base/5/16384"]


def test_a_file_that_is_no_file_any_more_is_an_error(tmp_path: Path) -> None:
    """A link and a pipe in its place are not read."""
    scene = PackedFolder(tmp_path)
    file = scene.file("PG_VERSION", b"18\n")
    file.source.unlink()
    file.source.symlink_to("/etc/passwd")
    with pytest.raises(BaseBackupError, match=r"PG_VERSION' cannot be read: Too many levels of symbolic links"):
        open_source(file, STARTED)
    file.source.unlink()
    os.mkfifo(file.source)
    with pytest.raises(BaseBackupError, match=r"PG_VERSION' is no regular file any more"):
        open_source(file, STARTED)


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    """A path through a file is gone, as a dropped database's is; a loop of links is not."""
    scene = PackedFolder(tmp_path)
    file = scene.file("base/5/1", b"1")
    file.source.unlink()
    file.source.parent.rmdir()
    file.source.parent.touch()
    assert open_source(file, STARTED) is None
    file.source.parent.unlink()
    file.source.parent.symlink_to(file.source.parent)
    with pytest.raises(BaseBackupError, match="cannot be read: Too many levels"):
        open_source(file, STARTED)


PAGES = bytes(2 * READ_BYTES)  # new pages, which are right


def _stored_part(content: bytes, offset: int = 0) -> FilePart:
    return FilePart(0, offset, len(content), f"{google_crc32c.value(content):08x}")


def test_what_is_stored_already_counts_as_read(tmp_path: Path) -> None:
    """The whole file's checksum goes on behind it."""
    scene = PackedFolder(tmp_path)
    source = open_source(scene.file("base/5/1", PAGES + LARGE, relation=True), STARTED)
    assert source is not None
    with source:
        assert source.takes_stored(_stored_part(PAGES), None, lambda: True)
        assert source.rest_bytes == len(LARGE)
        assert b"".join(source.chunks(source.rest_bytes)) == LARGE
        assert source.crc32c == f"{google_crc32c.value(PAGES + LARGE):08x}"


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_what_is_not_stored_is_read_again(tmp_path: Path, is_confirmed: bool) -> None:
    """Whether its checksum is another one, or nobody has it any more."""
    scene = PackedFolder(tmp_path)
    source = open_source(scene.file("base/5/1", PAGES, relation=True), STARTED)
    assert source is not None
    with source:
        part = _stored_part(b"x" * len(PAGES) if is_confirmed else PAGES)
        assert not source.takes_stored(part, None, lambda: is_confirmed)
        assert b"".join(source.chunks(source.rest_bytes)) == PAGES
        assert source.crc32c == f"{google_crc32c.value(PAGES):08x}"


def test_a_file_without_pages_or_with_a_damaged_one_is_stored_again(tmp_path: Path) -> None:
    """The checksum alone proves nothing of a file that ends with its own, and a damaged page must be told of again."""
    scene = PackedFolder(tmp_path)
    for file in (scene.file("base/5/1", PAGES), scene.file("base/5/2", LARGE, relation=True)):
        source = open_source(file, STARTED)
        assert source is not None
        with source:
            assert not source.takes_stored(_stored_part(file.source.read_bytes()), None, lambda: True)
            assert source.rest_bytes == file.size_bytes


def test_what_is_cut_while_it_is_compared_is_read_again(tmp_path: Path) -> None:
    """What is left of it is no zeros: replay needs the pages before the end that the truncation left."""
    scene, cut = PackedFolder(tmp_path), []
    pages = bytes(range(1, 9)) * (2 * READ_BYTES // 8)
    file = scene.file("base/5/1", pages, relation=True)
    keep = READ_BYTES + PAGE

    def truncate(_: int) -> None:
        if not cut:
            cut.append(True)
            os.truncate(file.source, keep)

    source = open_source(file, replace(STARTED, has_checksums=False), truncate)
    assert source is not None
    with source:
        assert not source.takes_stored(_stored_part(pages), None, lambda: True)
        assert b"".join(source.chunks(source.rest_bytes)) == pages[:keep] + bytes(len(pages) - keep)
