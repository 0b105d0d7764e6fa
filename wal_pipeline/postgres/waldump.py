"""Reads the commits in a segment with PostgreSQL's own pg_waldump."""

import logging
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from wal_pipeline.errors import InvalidWalFileError, InvalidWalNameError, PostgresError
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.commits import Commit, CommitReader, CommitSpan, FirstCommit
from wal_pipeline.postgres.waldump_output import CommitRecord, Scan, parse_first, parse_output
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name, segment_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, LongPageHeader, check_segment
from wal_pipeline.wal.pages import first_record, record_end

__all__ = ["Commit", "CommitReader", "CommitSpan", "FirstCommit", "PgWaldump"]

_log = logging.getLogger(__name__)
_NO_RECORD: Final = "could not find a valid record after "
_LSN: Final = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b")
_TAIL_BYTES: Final = 256 * 1024  # before a boundary, where a commit record that crosses it may begin
_LONG_TAIL_BYTES: Final = 1 << 20  # the same, where one try must be enough


class PgWaldump(CommitReader):
    """Reads commits with the pg_waldump of the version that wrote the segment: no other version can read it."""

    def __init__(self, *, bindir: Path | None = None, timeout_seconds: float = 60.0) -> None:
        """Look in ``bindir`` first (default: PGBINDIR).

        ``timeout_seconds`` is for one segment of 16 MiB; larger ones get proportionally more.
        """
        self._bindir = bindir
        self._timeout_seconds = timeout_seconds
        self._programs: dict[int, Path] = {}

    def inspect(
        self,
        path: Path,
        major: int,
        wal_segment_size: int,
        *,
        name: WalFileName | None = None,
        previous: Path | None = None,
    ) -> CommitSpan | None:
        """Return the commits, or None (and a warning in the log) where they cannot be known."""
        try:
            return self.read(path, major, wal_segment_size, name=name, previous=previous)
        except (PostgresError, InvalidWalFileError, InvalidWalNameError, OSError) as error:
            _log.warning("the commits in '%s' are not known: %s", path, error)
            return None

    def read(
        self,
        path: Path,
        major: int,
        wal_segment_size: int,
        *,
        name: WalFileName | None = None,
        previous: Path | None = None,
    ) -> CommitSpan:
        """Return the commits in the segment file at ``path``; see ``CommitReader.inspect``.

        Raises: PostgresError, InvalidWalFileError, InvalidWalNameError, OSError.
        """
        segment = _segment(path, name)
        header = _header(path, segment, major, wal_segment_size)
        program = self.program(major)
        timeout_seconds = self._timeout_seconds * max(1, wal_segment_size >> 24)
        with _folder_of(path, segment) as folder:
            scan = run_waldump([program, "-r", "Transaction", folder / segment.name], timeout_seconds)
        span = _whole_span(scan, path, header)
        if not _record_ends_inside(header):
            return span
        if previous is None:
            return replace(span, unseen_start=True)
        # Both get the segment's timeline: after a promotion the segment before may have the old timeline's name.
        before = segment_name(segment.timeline, segment.number(wal_segment_size) - 1, wal_segment_size)
        return self._with_start(span, header, {before: previous, segment: path}, program)

    def first_commit(
        self, files: Mapping[WalFileName, Path], begin: Lsn, end: Lsn | None, *, system_identifier: int
    ) -> FirstCommit:
        """Return the first commit whose record ends after ``begin``, and up to ``end``.

        ``files`` are consecutive segments of one timeline: the one that holds ``begin``, those after it as far as they
        are at hand, and the one before it, which is needed where a record from there crosses ``begin``. Without
        ``end``, nothing proves that there is no commit.

        Raises: PostgresError, InvalidWalFileError, InvalidWalNameError, OSError.
        """
        unread = FirstCommit(None, begin)
        headers = {name: _any_header(path, name, system_identifier) for name, path in files.items()}
        first = next((name for name, one in headers.items() if _holds(one, begin)), None)
        major = None if first is None else headers[first].server_major
        if first is None or major is None:
            return unread
        header = headers[first]
        crosses = _record_ends_inside(header) and begin <= first_record(header)
        has_before = any(one.page_address < header.page_address for one in headers.values())
        if crosses and not has_before:
            return unread
        # pg_waldump begins with the first record after the start: one that crosses ``begin`` starts before it
        start = Lsn(max(begin - _LONG_TAIL_BYTES, header.page_address))
        start = Lsn(header.page_address - min(_LONG_TAIL_BYTES, header.wal_segment_size)) if crosses else start
        size, last = header.wal_segment_size, max(one.page_address for one in headers.values())
        known_end = Lsn(last + size) if end is None else min(end, Lsn(last + size))
        command: list[Path | str] = [self.program(major), "-r", "Transaction"]
        command += ["-t", str(first.timeline), "-s", str(start), "-e", str(known_end)]

        def ends_after(record: CommitRecord) -> bool:
            return record_end(record.commit.lsn, record.size_bytes, size, header.block_size) > begin

        with _held(files) as (folder, descriptors):
            parse = partial(parse_first, is_wanted=ends_after)
            scan = run_waldump([*command, "-p", folder], self._timeout_seconds, pass_fds=descriptors, parse=parse)
        if scan.first is not None:
            return FirstCommit(scan.first.commit, begin)
        return unread if scan.error is not None or end is None else FirstCommit(None, known_end)

    def program(self, major: int) -> Path:
        """Return the program of a major version. It is looked for once, and again while it is missing.

        Raises: PostgresError.
        """
        program = self._programs.get(major)
        if program is None or not program.exists():
            program = find_binaries(major, exactly=True, bindir=self._bindir).program("pg_waldump")
            self._programs[major] = program
        return program

    def _with_start(
        self, span: CommitSpan, header: LongPageHeader, segments: Mapping[WalFileName, Path], program: Path
    ) -> CommitSpan:
        """Add the commit whose record begins in the first of two ``segments`` and ends in the second, if any."""
        size = header.wal_segment_size
        timeline = next(iter(segments)).timeline
        command: list[Path | str] = [program, "-r", "Transaction", "-t", str(timeline), "-e", str(first_record(header))]
        try:
            with _held(segments) as (folder, descriptors):
                for tail_bytes in (min(_TAIL_BYTES, size), size):
                    start = Lsn(header.page_address - tail_bytes)
                    words = [*command, "-s", str(start), "-p", folder]
                    scan = run_waldump(words, self._timeout_seconds, pass_fds=descriptors)
                    if scan.error is None:
                        crossing = _crossing(scan, header)
                        return span if crossing is None else _prepend(crossing, span)
        except FileNotFoundError:  # the segment before was archived and released meanwhile
            pass
        return replace(span, unseen_start=True)  # the record begins before both, or the first is damaged


def _segment(path: Path, name: WalFileName | None) -> WalFileName:
    segment = name or parse_file_name(path.name)
    if segment is None or segment.kind not in (FileKind.SEGMENT, FileKind.PARTIAL):
        raise PostgresError(f"'{path.name}' is not a segment's name")
    return parse_file_name(segment.name[:24]) or segment


def _header(path: Path, segment: WalFileName, major: int, wal_segment_size: int) -> LongPageHeader:
    with path.open("rb") as file:
        header = check_segment(segment, file.read(LONG_HEADER_BYTES), path.stat().st_size, None)
    # A magic that is not known may be of the version that was named: its pg_waldump reads it, or says that it is not.
    if header.server_major not in (None, major) or header.wal_segment_size != wal_segment_size:
        raise PostgresError(
            f"'{path.name}' is of PostgreSQL {header.server_major or f'with magic {header.magic:04X}'} "
            f"with segments of {header.wal_segment_size} bytes, expected {major} and {wal_segment_size}"
        )
    return header


def _holds(header: LongPageHeader, lsn: Lsn) -> bool:
    return header.page_address <= lsn < header.page_address + header.wal_segment_size


def _any_header(path: Path, name: WalFileName, system_identifier: int) -> LongPageHeader:
    with path.open("rb") as file:
        return check_segment(name, file.read(LONG_HEADER_BYTES), path.stat().st_size, [system_identifier])


@contextmanager
def _folder_of(path: Path, name: WalFileName) -> Iterator[Path]:
    """Give a folder in which the segment has its own name: its own folder, or a temporary one with a link."""
    if path.name == name.name:
        yield path.absolute().parent
        return
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-waldump-") as folder:
        (Path(folder) / name.name).symlink_to(path.absolute())
        yield Path(folder)


@contextmanager
def _held(files: Mapping[WalFileName, Path]) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Open the segments, and give a folder of links to the open files for a process that gets the descriptors.

    pg_waldump waits five seconds for a segment that it does not find (pg_waldump.c: WALDumpOpenSegment), and a segment
    in the spool may be released at any moment. Raises: OSError.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wal-pipeline-waldump-")))
        descriptors = []
        for name, path in files.items():
            descriptors.append(stack.enter_context(path.open("rb")).fileno())
            (folder / name.name).symlink_to(f"/dev/fd/{descriptors[-1]}")
        yield folder, tuple(descriptors)


def run_waldump(
    command: list[Path | str],
    timeout_seconds: float,
    *,
    pass_fds: Sequence[int] = (),
    parse: Callable[[Iterable[bytes]], Scan] = parse_output,
) -> Scan:
    """Run pg_waldump and read its lines as they come: a segment of 1 GiB prints hundreds of MB.

    Raises: PostgresError where it cannot be started, runs too long, or prints lines that cannot be read.
    """
    # Only the variables that it needs, without our credentials; it prints times in UTC and messages in English.
    environment = {"LC_ALL": "C", "TZ": "UTC", "PG_COLOR": "never"}
    environment |= {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise PostgresError(f"'{command[0]}' cannot be started: {error.strerror}") from error
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(timeout_seconds, stop)
    timer.start()
    try:
        with process:
            scan = parse(process.stdout or ())
    finally:
        timer.cancel()
        process.kill()  # needed where reading its output failed; else it has ended already
    if timed_out.is_set():
        raise PostgresError(f"'{command[0]}' took more than {timeout_seconds:g} s and was stopped")
    ended_early = process.returncode < 0 and scan.first is not None  # ``parse`` wanted no more lines
    if process.returncode != 0 and scan.error is None and not ended_early:
        raise PostgresError(f"'{command[0]}' ended with exit code {process.returncode} and no error message")
    return scan


def _whole_span(scan: Scan, path: Path, header: LongPageHeader) -> CommitSpan:
    """Turn the scan of a whole segment into its span.

    Raises: PostgresError where pg_waldump's error leaves the segment's commits unknown.
    """
    stopped_at = None if scan.error is None else _stopped_at(scan.error, path, header)
    return CommitSpan(
        first=scan.first.commit if scan.first else None,
        last=scan.last.commit if scan.last else None,
        count=scan.count,
        latest_at=scan.latest_at,
        stopped_at=stopped_at,
    )


def _stopped_at(error: str, path: Path, header: LongPageHeader) -> Lsn | None:
    """Return the LSN where pg_waldump found no valid record; None where a sound segment holds no whole record."""
    if error.startswith(_NO_RECORD):
        if _no_record_ends_inside(path, header):
            return None
        raise PostgresError(f"pg_waldump cannot read '{path.name}': {error}")
    positions = [Lsn.parse(text) for text in _LSN.findall(error)]
    end = header.page_address + header.wal_segment_size
    inside = [position for position in positions if header.page_address <= position < end]
    if not inside:
        raise PostgresError(f"pg_waldump cannot read '{path.name}': {error}")
    return inside[-1]


def _no_record_ends_inside(path: Path, header: LongPageHeader) -> bool:
    """Whether the first record that begins in the segment ends in a later one, or none begins in it at all."""
    end = header.page_address + header.wal_segment_size
    start = first_record(header)
    if start >= end:
        return True
    with path.open("rb") as file:
        file.seek(start - header.page_address)
        size_bytes = int.from_bytes(file.read(4), "little")  # XLogRecord.xl_tot_len
    return record_end(start, size_bytes, header.wal_segment_size, header.block_size) > end


def _record_ends_inside(header: LongPageHeader) -> bool:
    """Whether a record from the segment before ends in this one."""
    return header.begins_inside_record and first_record(header) <= header.page_address + header.wal_segment_size


def _crossing(scan: Scan, header: LongPageHeader) -> Commit | None:
    """Return the last commit of a scan up to a segment's first record, where its record crosses into the segment."""
    last = scan.last
    if last is None or last.commit.lsn >= header.page_address:
        return None
    end = record_end(last.commit.lsn, last.size_bytes, header.wal_segment_size, header.block_size)
    return last.commit if end > header.page_address else None


def _prepend(commit: Commit, span: CommitSpan) -> CommitSpan:
    return replace(
        span,
        first=commit,
        last=span.last or commit,
        count=span.count + 1,
        latest_at=max(commit.at, span.latest_at or commit.at),
    )
