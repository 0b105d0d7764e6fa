"""A look into a tar that passes by: the same members as Python's tarfile sees, in whatever pieces it comes."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.tar_watch import TarWatch


def make_tar(members: list[tuple[str, bytes]]) -> bytes:
    """A POSIX tar with these files, and a folder before each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            folder = tarfile.TarInfo("pg_wal")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@given(
    st.lists(st.tuples(st.text("abc_", min_size=1, max_size=99), st.binary(max_size=2000)), max_size=5),
    st.binary(max_size=3000),
    st.lists(st.integers(1, 1500), min_size=1, max_size=20),
)
def test_a_member_is_kept_however_the_tar_is_cut(
    members: list[tuple[str, bytes]], content: bytes, cuts: list[int]
) -> None:
    """The named member's bytes come out whole, whatever lies around it and wherever the pieces end."""
    data = make_tar([*members, ("backup_label", content), *members])
    kept = bytearray()
    watch = TarWatch({"backup_label": kept.extend})
    position, turn = 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        watch.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    assert bytes(kept) == content
    assert watch.seen == {"backup_label"}
    assert watch.complete


def test_a_cut_tar_is_not_complete() -> None:
    """Without the blocks of zeros at its end, a tar was cut short."""
    data = make_tar([("base/1/1259", b"x" * 700)])
    watch = TarWatch({})
    watch.feed(data[: 2 * 512 + 1024])
    assert not watch.complete


def test_a_member_of_more_than_8_gib_is_passed_over() -> None:
    """Sizes that octal digits cannot hold are written in binary: PostgreSQL does so from 8 GiB on."""
    info = tarfile.TarInfo("base/1/huge")
    info.size = 9 << 30
    watch = TarWatch({})
    watch.feed(info.tobuf(tarfile.GNU_FORMAT))
    watch.feed(b"\0" * 4096)
    assert not watch.complete  # the zeros are the member's content, not the tar's end


def test_what_is_not_a_tar_is_refused() -> None:
    """Another format's bytes are said to be no tar."""
    with pytest.raises(BaseBackupError) as caught:
        TarWatch({}).feed(b"PGDMP" + b"x" * 600)
    assert caught.value.message == "pg_basebackup's output is not a tar: a header's checksum does not match"
