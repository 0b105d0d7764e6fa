"""Reads pg_waldump's output line by line."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.commits import Commit
from wal_pipeline.wal.lsn import Lsn

_COMMIT_MARK: Final = b" desc: COMMIT"
_COMMIT: Final = re.compile(
    rb"len \(rec/tot\): +\d+/ *(?P<size>\d+), tx: +(?P<xid>\d+), lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+), .*?"
    rb"desc: COMMIT(?:_PREPARED (?P<prepared>\d+):)? (?P<at>\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC(?:;|$)"
)
_ERROR_MARK: Final = b"pg_waldump: "


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A commit and its record's length, page headers not counted."""

    commit: Commit
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Scan:
    """The commits that one run of pg_waldump printed. ``error`` is its error line, without the program's name."""

    first: CommitRecord | None
    last: CommitRecord | None
    latest_at: datetime | None
    count: int
    error: str | None


def parse_output(lines: Iterable[bytes]) -> Scan:
    """Read pg_waldump's lines. Of the commits between the first and the last, only the time is read."""
    first: bytes | None = None
    last: bytes | None = None
    latest: bytes | None = None
    latest_time = b""
    count = 0
    error: str | None = None
    for line in lines:
        at = line.find(_COMMIT_MARK)
        if at >= 0:
            count += 1
            first = first or line
            last = line
            time = line[line.find(b"-", at) - 4 :][:26]  # of fixed width: compares as text
            if time > latest_time:
                latest, latest_time = line, time
        elif line.startswith(_ERROR_MARK):
            error = error or _error_text(line)
    newest = _record(latest)
    return Scan(_record(first), _record(last), newest.commit.at if newest else None, count, error)


def parse_first(lines: Iterable[bytes], is_wanted: Callable[[CommitRecord], bool]) -> Scan:
    """Read pg_waldump's lines up to the first commit that is wanted, and none after it."""
    error: str | None = None
    for line in lines:
        if line.find(_COMMIT_MARK) >= 0:
            found = _record(line)
            if found is not None and is_wanted(found):
                return Scan(found, found, found.commit.at, 1, error)
        elif line.startswith(_ERROR_MARK):
            error = error or _error_text(line)
    return Scan(None, None, None, 0, error)


def parse_commit(line: bytes) -> CommitRecord | None:
    """Read one line; None where it is not a commit's. Raises: PostgresError."""
    return _record(line) if line.find(_COMMIT_MARK) >= 0 else None


def _error_text(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return text.removeprefix("pg_waldump: ").removeprefix("error: ")


def _record(line: bytes | None) -> CommitRecord | None:
    if line is None:
        return None
    match = _COMMIT.search(line)
    if match is None:
        raise PostgresError(f"pg_waldump's line cannot be read: '{line[:200].decode('utf-8', 'replace').strip()}'")
    at = datetime.strptime(match["at"].decode(), "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    commit = Commit(at, Lsn.parse(match["lsn"].decode()), int(match["prepared"] or match["xid"]))
    return CommitRecord(commit, int(match["size"]))
