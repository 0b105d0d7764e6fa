"""Extraction of a tar that cannot be trusted, and of one that is cut short."""

import io
import tarfile
from pathlib import Path

import pytest

from wal_pipeline.commands.restore.untar import HELD_BACK, hold_back_pg_control, release_pg_control, safe_name, untar
from wal_pipeline.errors import DamagedCopyError, RestoreError
from wal_pipeline_tests.support.tars import Sink, make_tar, produced


def test_files_and_folders_are_extracted_with_closed_modes(tmp_path: Path) -> None:
    """Contents arrive; others get no access, whatever the tar says; pg_control waits under another name."""
    tar = make_tar(("base", None, 0o777), ("base/1", b"x" * 5000, 0o666), ("global/pg_control", b"c", 0o600))
    untar(produced(tar), tmp_path)
    assert (tmp_path / "base/1").read_bytes() == b"x" * 5000
    assert (tmp_path / "base").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "base/1").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "global/pg_control").exists()
    release_pg_control(tmp_path)
    assert (tmp_path / "global/pg_control").read_bytes() == b"c"
    hold_back_pg_control(tmp_path)
    assert (tmp_path / HELD_BACK).exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/.."])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    """An absolute name and one with `..` stop the restore."""
    with pytest.raises(RestoreError) as caught:
        untar(produced(make_tar((name, b"x", 0o600))), tmp_path / "in")
    assert caught.value.message == (
        f"the base backup's tar holds the name '{name}', expected one below the data directory"
    )
    assert list(tmp_path.rglob("x")) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_other_kinds_of_members_are_refused(tmp_path: Path, kind: bytes) -> None:
    """A base backup's tar has files and folders only: a link could lead a later file elsewhere."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc"
        tar.addfile(info)
    with pytest.raises(RestoreError):
        untar(produced(buffer.getvalue()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_link_is_not_followed(tmp_path: Path) -> None:
    """A file is not written through a link that lies in the folder already."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RestoreError):
        untar(produced(make_tar(("file", b"x", 0o600))), tmp_path / "in")
    assert not (tmp_path / "elsewhere").exists()


def test_the_producers_error_is_the_one_that_is_told(tmp_path: Path) -> None:
    """Where the bytes end because a copy is damaged, the damage is said and not that the tar is short."""

    def produce(sink: Sink) -> None:
        sink(make_tar(("a", b"x" * 5000, 0o600))[:700])
        raise DamagedCopyError("r2", "object 'k' is damaged")

    with pytest.raises(DamagedCopyError) as caught:
        untar(produce, tmp_path)
    assert caught.value.message == "r2: object 'k' is damaged"


def test_noise_is_not_a_tar(tmp_path: Path) -> None:
    """Bytes that are no tar are refused."""
    with pytest.raises(RestoreError):
        untar(produced(b"noise" * 1000), tmp_path)


@pytest.mark.parametrize("kept", [700, 512, 5632])
def test_a_tar_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    """In the middle of a file, after a header, and after the last file where only the end's zeros are missing."""
    with pytest.raises(RestoreError) as caught:
        untar(produced(make_tar(("a", b"x" * 5000, 0o600))[:kept]), tmp_path)
    assert caught.value.message == "the base backup's tar is damaged: it was cut short"


def test_all_bytes_are_taken_also_those_after_the_end(tmp_path: Path) -> None:
    """Whoever hashes the tar sees its padding too."""
    passed = []

    def produce(sink: Sink) -> None:
        for piece in (make_tar(("a", b"x", 0o600)), bytes(70000), b"more"):
            passed.append(sink(piece))

    untar(produce, tmp_path)
    assert len(passed) == 3


def test_large_files_and_empty_ones_are_whole(tmp_path: Path) -> None:
    """Sizes around a block's, in pieces that end anywhere, with folders that the tar does not name."""
    sizes = (0, 1, 511, 512, 513, 1_000_000)
    untar(produced(make_tar(*((f"a/b/{size}", bytes([size % 251]) * size, 0o600) for size in sizes))), tmp_path)
    for size in sizes:
        assert (tmp_path / f"a/b/{size}").read_bytes() == bytes([size % 251]) * size


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers_are_refused(tmp_path: Path, form: int) -> None:
    """PostgreSQL writes none, and what they would say of a name was not looked at."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("a" * 300))
    with pytest.raises(RestoreError):
        untar(produced(buffer.getvalue()), tmp_path)
    assert list(tmp_path.rglob("a*")) == []


def test_safe_names_are_kept() -> None:
    """`./` is left out, and a name with dots inside stays."""
    assert safe_name("./base/1/..a") == "base/1/..a"
