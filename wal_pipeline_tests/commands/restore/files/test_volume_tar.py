"""One volume's tar is written into its places, whatever pieces its bytes come in; nothing else is."""

import os
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.base_backup.file_index import FilePart, IndexedFile
from wal_pipeline.commands.backup.local.volume_tar import TAR_END, member_header, padding
from wal_pipeline.commands.restore.files.volume_tar import VolumeTar, WantedPart, differing
from wal_pipeline.errors import RestoreError

MODE = 0o640


def crc(data: bytes) -> str:
    """A CRC-32C as the index has it."""
    return f"{google_crc32c.value(data):08x}"


def whole(path: str, data: bytes) -> WantedPart:
    """A file that lies in one volume."""
    part = FilePart(0, 0, len(data), crc(data))
    return WantedPart(IndexedFile(path, len(data), 0, MODE, crc(data), (part,)), part)


def second_part(path: str, first: bytes, second: bytes) -> WantedPart:
    """The second of two parts of a file."""
    parts = (FilePart(0, 0, len(first), crc(first)), FilePart(1, len(first), len(second), crc(second)))
    return WantedPart(IndexedFile(path, len(first + second), 0, MODE, crc(first + second), parts), parts[1])


def tar_of(*members: tuple[str, bytes]) -> bytes:
    """A volume with these members."""
    framed = (member_header(name, len(data), MODE, 0) + data + padding(len(data)) for name, data in members)
    return b"".join(framed) + TAR_END


def extract(folder: Path, tar: bytes, *wanted: WantedPart, piece: int = 1 << 20) -> None:
    """Feed a tar in pieces."""
    found = VolumeTar("files.000007.tar", {one.member: one for one in wanted}, lambda name: f"{folder}/{name}")
    try:
        for start in range(0, len(tar), piece):
            found.feed(tar[start : start + piece])
        found.finish()
    finally:
        found.close()


@given(st.integers(1, 3000), st.lists(st.integers(0, 2000), min_size=1, max_size=6))
def test_in_whatever_pieces_it_comes(tmp_path_factory: pytest.TempPathFactory, piece: int, sizes: list[int]) -> None:
    """Headers, contents and padding may be cut anywhere."""
    folder = tmp_path_factory.mktemp("volume")
    files = {f"f{number}": bytes([number + 1]) * size for number, size in enumerate(sizes)}
    wanted = [whole(name, data) for name, data in files.items() if name != "f0"]
    extract(folder, tar_of(*files.items()), *wanted, piece=piece)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: data for name, data in files.items() if name != "f0"
    }
    assert all(path.stat().st_mode & 0o7777 == MODE for path in folder.iterdir())


def test_a_part_is_written_where_it_belongs(tmp_path: Path) -> None:
    """What is before it stays as it is."""
    (tmp_path / "5").write_bytes(b"FIRST")
    wanted = second_part("5", b"first", b"second")
    extract(tmp_path, tar_of(("5.wal-pipeline-part.000000000000005", b"second")), wanted)
    assert (tmp_path / "5").read_bytes() == b"FIRSTsecond"


@pytest.mark.parametrize(
    ("tar", "reason"),
    [
        (tar_of(("a", b"abd")), f"'a' has the CRC-32C {crc(b'abd')}, expected 364b3fb7"),
        (tar_of(("a", b"longer than that")), "'a' has the type b'0' and 16 bytes, expected a file of 3 bytes"),
        (tar_of(("b", b"abc")), "it does not hold 'a', which the file index promises"),
        (tar_of(("a", b"abc"))[:600], "it was cut short"),
        (tar_of(("a", b"abc"))[:-1024], "it was cut short"),
        (b"x" * 1024, "invalid header"),
        (
            member_header("a", 0, 0o700, 0, is_folder=True) + TAR_END,
            "'a' has the type b'5' and 0 bytes, expected a file of 3 bytes",
        ),
    ],
)
def test_a_volume_that_is_not_what_the_index_says(tmp_path: Path, tar: bytes, reason: str) -> None:
    """Its bytes are those that were stored: no other store has better ones."""
    with pytest.raises(RestoreError) as caught:
        extract(tmp_path, tar, whole("a", b"abc"))
    assert caught.value.message == f"volume 'files.000007.tar' is not what its base backup says: {reason}"


def test_what_reads_back_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume was right: it is this machine that is not."""
    right = os.pread
    monkeypatch.setattr(os, "pread", lambda *words: right(*words).replace(b"b", b"B"))
    with pytest.raises(RestoreError) as caught:
        extract(tmp_path, tar_of(("a", b"abc")), whole("a", b"abc"))
    assert caught.value.message == (
        f"'a' was written and reads back with the CRC-32C {crc(b'aBc')}, expected {crc(b'abc')}"
    )


def test_a_link_in_a_files_place_is_not_followed(tmp_path: Path) -> None:
    """Nothing is written through it."""
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "a").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        extract(tmp_path, tar_of(("a", b"abc")), whole("a", b"abc"))
    assert (tmp_path / "other").read_bytes() == b"kept"


@given(st.data())
def test_only_pages_that_differ_are_written(data: st.DataObject) -> None:
    """Whatever is there already, also less than a page, or less than the new bytes."""
    page = 8192
    old_pages = data.draw(st.lists(st.sampled_from([b"a", b"b"]), max_size=6))
    new_pages = data.draw(st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=6))
    old = b"".join(one * page for one in old_pages)[: data.draw(st.integers(0, len(old_pages) * page))]
    new = b"".join(one * page for one in new_pages)[: data.draw(st.integers(1, len(new_pages) * page))]
    written = bytearray(old.ljust(len(new), b"?"))
    runs = list(differing(old, new))
    for start, end in runs:
        written[start:end] = new[start:end]
    assert written[: len(new)] == new
    same = [at for at in range(0, len(new), page) if old[at : at + page] == new[at : at + page]]
    assert not [at for at in same for start, end in runs if start <= at < end]


def test_right_pages_of_a_file_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read, as proof, and their disk has nothing to do."""
    pages = [bytes([number]) * 8192 for number in range(40)]
    right = b"".join(pages)
    (tmp_path / "a").write_bytes(b"".join([*pages[:7], b"x" * 8192, *pages[8:39]]))
    written: list[tuple[int, int]] = []
    write = os.pwrite

    def note(descriptor: int, data: bytes, offset: int) -> int:
        written.append((offset, len(data)))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", note)
    wanted = whole("a", right)
    tar = VolumeTar("files.000007.tar", {"a": wanted}, lambda name: f"{tmp_path}/{name}", overwrites=True)
    tar.feed(tar_of(("a", right)))
    tar.finish()
    assert (tmp_path / "a").read_bytes() == right
    assert written == [(7 * 8192, 8192), (39 * 8192, 8192)]
