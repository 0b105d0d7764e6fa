"""A file of the spool is read, checked, described and encoded once."""

import hashlib
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec, CommitTimes, WalFile
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.archive_push.prepare import Preparer, UnreadableWalError
from wal_pipeline.errors import InvalidWalFileError, MemoryShortError
from wal_pipeline.host.limits import Memory
from wal_pipeline.postgres.commits import Commit, CommitReader, CommitSpan
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, require_file_name
from wal_pipeline_tests.support.segments import (
    SEGMENT_BYTES,
    SYSTEM_IDENTIFIER,
    NoCommits,
    backup_history_bytes,
    history_bytes,
    name_of,
    segment_bytes,
    spool_segments,
)

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Commits(CommitReader):
    """Gives one answer, and keeps what it was asked."""

    def __init__(self, span: CommitSpan | None) -> None:
        self.span = span
        self.asked: list[tuple[object, ...]] = []

    def inspect(self, *asked: object, **named: object) -> CommitSpan | None:
        self.asked.append((*asked, named.get("previous")))
        return self.span


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", tmp_path / "quarantine", 60)


def listed(spool: Spool, name: str, *, settled: bool = False) -> SpoolFile:
    found = spool.find(require_file_name(name), datetime.now(UTC))
    assert found is not None
    return replace(found, settled=settled)


def prepare(
    spool: Spool, name: str, commits: CommitReader | None = None, *, settled: bool = False, needed: bool = True
):  # type: ignore[no-untyped-def]
    preparer = Preparer(spool, Encoder(Codec.ZSTD), commits or NoCommits())
    file = listed(spool, name, settled=settled)
    return preparer.prepare(file, {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: needed)


def test_a_segment_is_described(spool: Spool) -> None:
    """Everything that its bytes say stands in the record; the encoded bytes open to the file."""
    data = spool_segments(spool.folder, [5])[name_of(5)]
    prepared = prepare(spool, name_of(5))
    file = prepared.file
    assert (file.name, file.kind, file.system_identifier) == (name_of(5), FileKind.SEGMENT, SYSTEM_IDENTIFIER)
    assert (file.size_bytes, file.sha256) == (SEGMENT_BYTES, hashlib.sha256(data).hexdigest())
    assert (file.wal_segment_size, file.server_major, file.timeline) == (SEGMENT_BYTES, 18, 1)
    assert (file.start_lsn, file.end_lsn) == (Lsn(5 * SEGMENT_BYTES), Lsn(6 * SEGMENT_BYTES))
    assert file.commit_times is CommitTimes.UNKNOWN
    assert prepared.seconds.keys() == {"checksum", "compress"}
    assert prepared.encoded.encoding.seconds == prepared.seconds["compress"]


def test_what_no_store_needs_is_not_compressed(spool: Spool) -> None:
    """A file that is on every store already is only read and checked."""
    spool_segments(spool.folder, [5])
    prepared = prepare(spool, name_of(5), needed=False)
    assert prepared.encoded is None
    assert prepared.seconds.keys() == {"checksum"}


def test_commit_times(spool: Spool) -> None:
    """Those that pg_waldump reads; a segment without a commit is known to have none."""
    spool_segments(spool.folder, [5])
    commit = Commit(NOON, Lsn(5 * SEGMENT_BYTES + 100), 7)
    file = prepare(spool, name_of(5), Commits(CommitSpan(commit, commit, 1, NOON))).file
    assert (file.commit_times, file.first_commit_at, file.last_commit_at) == (CommitTimes.KNOWN, NOON, NOON)
    file = prepare(spool, name_of(5), Commits(CommitSpan(None, None, 0, None))).file
    assert (file.commit_times, file.first_commit_at) == (CommitTimes.KNOWN, None)
    file = prepare(spool, name_of(5), Commits(CommitSpan(None, None, 0, None, unseen_start=True))).file
    assert file.commit_times is CommitTimes.UNKNOWN


def test_a_segment_that_stops_in_its_middle(spool: Spool) -> None:
    """It may still be written into space set aside for it: it is left, and archived as it is once it has settled."""
    spool_segments(spool.folder, [5])
    commits = Commits(CommitSpan(None, None, 0, None, stopped_at=Lsn(5 * SEGMENT_BYTES + 8192)))
    with pytest.raises(UnreadableWalError) as raised:
        prepare(spool, name_of(5), commits)
    assert raised.value.message == f"'{name_of(5)}' has no valid record after 0/502000"
    assert prepare(spool, name_of(5), commits, settled=True).file.name == name_of(5)


def test_text_files(spool: Spool) -> None:
    """History files belong to the current cluster and have no LSNs; a partial segment is a segment that is not read."""
    backup = f"{name_of(2)}.00000028.backup"
    (spool.folder / "00000002.history").write_bytes(history_bytes([1]))
    (spool.folder / backup).write_bytes(backup_history_bytes(name_of(2), "0/200028"))
    (spool.folder / f"{name_of(4)}.partial").write_bytes(segment_bytes(4))
    commits = Commits(None)
    for name, kind in (("00000002.history", FileKind.HISTORY), (backup, FileKind.BACKUP_HISTORY)):
        file = prepare(spool, name, commits).file
        assert (file.kind, file.system_identifier, file.start_lsn) == (kind, SYSTEM_IDENTIFIER, None)
        assert file.commit_times is CommitTimes.NONE
    partial = prepare(spool, f"{name_of(4)}.partial", commits).file
    assert (partial.kind, partial.start_lsn) == (FileKind.PARTIAL, Lsn(4 * SEGMENT_BYTES))
    assert commits.asked == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("00000002.history", b"no history\n"),
        ("00000003.history", history_bytes([1, 2])[:-40]),
        ("00000002.history", history_bytes([1, 2])),
        (f"{name_of(2)}.00000028.backup", b"START WAL LOCATION"),
        (f"{name_of(3)}.00000028.backup", backup_history_bytes(name_of(2), "0/200028")),
        (name_of(1), bytes(SEGMENT_BYTES)),
        (name_of(1), segment_bytes(2)),
        (f"{name_of(1)}.partial", segment_bytes(2)),
    ],
)
def test_files_that_are_not_what_their_name_says(spool: Spool, name: str, content: bytes) -> None:
    """Each is refused by its name, before it is compressed."""
    (spool.folder / name).write_bytes(content)
    with pytest.raises(InvalidWalFileError, match=name):
        prepare(spool, name)


def test_a_file_that_changed(spool: Spool) -> None:
    """It is given back to be listed again."""
    spool_segments(spool.folder, [1])
    file = listed(spool, name_of(1))
    (spool.folder / name_of(1)).unlink()
    preparer = Preparer(spool, Encoder(Codec.ZSTD), NoCommits())
    assert preparer.prepare(file, {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True) is None


def large(spool: Spool) -> SpoolFile:
    """A segment of 64 MiB, which takes no space."""
    name = name_of(1, size=64 << 20)
    (spool.folder / name).touch()
    os.truncate(spool.folder / name, 64 << 20)
    return listed(spool, name)


@pytest.mark.parametrize(
    ("memory", "may_pass", "found"),
    [(Memory(200 << 20, 150 << 20), False, "200 MiB"), (Memory(400 << 20, 150 << 20), True, "150 MiB free")],
)
def test_a_segment_that_does_not_fit_does_not_get_the_run_killed(
    spool: Spool, memory: Memory, may_pass: bool, found: str
) -> None:
    """It is refused by its name before it is read: what it needs, and what there is."""
    preparer = Preparer(spool, Encoder(Codec.ZSTD), NoCommits(), lambda: memory)
    with pytest.raises(MemoryShortError) as raised:
        preparer.prepare(large(spool), {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True)
    assert raised.value.message == (
        f"'{name_of(1, size=64 << 20)}' of 64 MiB needs about 256 MiB of memory to be archived with zstd, found {found}"
    )
    assert raised.value.may_pass is may_pass
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("Give this host or its container more memory.")


def test_a_small_segment_asks_for_no_memory(spool: Spool) -> None:
    """Sixteen MiB fit wherever this program does, and a host that is short of memory must go on archiving."""
    spool_segments(spool.folder, [5])
    preparer = Preparer(spool, Encoder(Codec.ZSTD), NoCommits(), lambda: Memory(1, 1))
    assert preparer.prepare(listed(spool, name_of(5)), {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("encrypted", [False, True])
def test_encoding_does_not_need_more_than_is_said(codec: Codec, encrypted: bool) -> None:
    """Measured in a process of its own, with content that does not shrink."""
    program = textwrap.dedent("""
        import os, resource, sys
        from wal_pipeline.archive.records import Codec
        from wal_pipeline.codec.encoder import Encoder
        recipients = ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"] if sys.argv[2] == "True" else []
        encoder = Encoder(Codec(sys.argv[1]), None, recipients)
        encoder.encode(os.urandom(1 << 20))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        encoder.encode(os.urandom(96 << 20))
        used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        print(used, encoder.needed_bytes(96 << 20))
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, codec.value, str(encrypted)], capture_output=True, text=True, check=True
    )
    used, said = (int(word) for word in done.stdout.split())
    assert used <= said + (16 << 20)


def unread(
    spool: Spool, *, settled: bool = True, unreadable: bool = True, first: bytes = b"\x4a\x41"
) -> WalFile | None:
    """Prepare a segment of bytes that are no WAL page."""
    (spool.folder / name_of(7)).write_bytes((b"\x4a\x41" + bytes(range(256)) * (SEGMENT_BYTES // 256))[:SEGMENT_BYTES])
    preparer = Preparer(spool, Encoder(Codec.ZSTD), NoCommits(), unreadable=unreadable)
    file = listed(spool, name_of(7), settled=True)
    prepared = preparer.prepare(file, {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True)
    return None if prepared is None else prepared.file


def test_encrypted_wal_is_not_lost_where_the_setting_says_so(spool: Spool) -> None:
    """It is archived by its name and its digest; nothing is claimed of what is in it."""
    file = unread(spool)
    assert file is not None
    assert (file.system_identifier, file.server_major, file.is_unread) == (SYSTEM_IDENTIFIER, None, True)
    assert (file.wal_segment_size, file.start_lsn, file.end_lsn) == (
        SEGMENT_BYTES,
        Lsn(7 * SEGMENT_BYTES),
        Lsn(8 * SEGMENT_BYTES),
    )
    assert file.commit_times is CommitTimes.UNKNOWN
    assert file.sha256 == hashlib.sha256((spool.folder / name_of(7)).read_bytes()).hexdigest()


def test_without_the_setting_it_is_refused(spool: Spool) -> None:
    """As before: a foreign file is no segment."""
    with pytest.raises(InvalidWalFileError, match="does not begin with a WAL page"):
        unread(spool, unreadable=False)


def test_space_that_is_set_aside_is_not_taken_for_encrypted_wal(spool: Spool) -> None:
    """A copy that just began has a segment's size and nothing but zeros."""
    (spool.folder / name_of(7)).write_bytes(bytes(SEGMENT_BYTES))
    preparer = Preparer(spool, Encoder(Codec.ZSTD), NoCommits(), unreadable=True)
    with pytest.raises(InvalidWalFileError):
        preparer.prepare(listed(spool, name_of(7)), {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True)


NO_COMMIT = CommitSpan(first=None, last=None, count=0, latest_at=None)


def newer_segment(spool: Spool) -> None:
    """A segment whose pages have a magic that is not known yet."""
    data = bytearray(segment_bytes(8))
    data[:2] = b"\x21\xd1"
    (spool.folder / name_of(8)).write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("span", "major", "times"),
    [(NO_COMMIT, 19, CommitTimes.KNOWN), (None, None, CommitTimes.UNKNOWN)],
)
def test_a_newer_versions_wal_is_read_with_its_own_program(
    spool: Spool, span: CommitSpan | None, major: int | None, times: CommitTimes
) -> None:
    """The server says its version, and pg_waldump of it whether that is so."""
    newer_segment(spool)
    commits = Commits(span)
    preparer = Preparer(spool, Encoder(Codec.ZSTD), commits, newer_major=lambda: 19)
    prepared = preparer.prepare(
        listed(spool, name_of(8), settled=True), {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True
    )
    assert prepared is not None
    assert commits.asked[0][1] == 19
    assert (prepared.file.server_major, prepared.file.commit_times) == (major, times)


def test_nobody_is_asked_about_wal_that_is_known(spool: Spool) -> None:
    """A connection for each segment would be one too many."""
    spool_segments(spool.folder, [5])

    def fail() -> int:
        raise AssertionError

    preparer = Preparer(spool, Encoder(Codec.ZSTD), NoCommits(), newer_major=fail)
    assert preparer.prepare(listed(spool, name_of(5)), {SYSTEM_IDENTIFIER}, SYSTEM_IDENTIFIER, lambda _file: True)
