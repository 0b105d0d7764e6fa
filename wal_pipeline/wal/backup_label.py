"""Reads the two files that describe a base backup in PostgreSQL's words: ``backup_label`` and ``backup_manifest``."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import BinaryIO, Final

from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn

_START: Final = re.compile(r"^START WAL LOCATION: ([0-9A-F/]+) \(file ([0-9A-F]{24})\)$", re.MULTILINE)
_TIMELINE: Final = re.compile(r"^START TIMELINE: (\d+)$", re.MULTILINE)
_LABEL: Final = re.compile(r"^LABEL: (.*)$", re.MULTILINE)
_INCREMENTAL: Final = re.compile(r"^INCREMENTAL FROM LSN: ([0-9A-F/]+)$", re.MULTILINE)
_RANGES: Final = re.compile(rb'"WAL-Ranges": (\[.*?\])', re.DOTALL)
_CHECKSUM: Final = re.compile(rb'"Manifest-Checksum": "([0-9a-f]{64})"\}\n\Z')
_TAIL_BYTES: Final = 65_536
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupLabel:
    """The file ``backup_label`` (xlogbackup.c: build_backup_content).

    Its times are in ``log_timezone`` with an abbreviation that may be ambiguous, so they are not read.
    """

    start_lsn: Lsn
    start_segment: str
    timeline: int
    label: str
    incremental_from: Lsn | None


def parse_backup_label(text: str) -> BackupLabel:
    """Read the text of ``backup_label``. Raises: BaseBackupError."""
    start, timeline, label = _START.search(text), _TIMELINE.search(text), _LABEL.search(text)
    if start is None or timeline is None or label is None:
        raise BaseBackupError("'backup_label' lacks the line of its start, its timeline or its label")
    parent = _INCREMENTAL.search(text)
    return BackupLabel(
        start_lsn=Lsn.parse(start[1]),
        start_segment=start[2],
        timeline=int(timeline[1]),
        label=label[1],
        incremental_from=Lsn.parse(parent[1]) if parent else None,
    )


@dataclass(frozen=True, slots=True)
class ManifestRange:
    """One of ``backup_manifest``'s WAL-Ranges: ``end_lsn`` is the first LSN after it."""

    timeline: int
    start_lsn: Lsn
    end_lsn: Lsn


def read_wal_ranges(manifest: BinaryIO) -> tuple[ManifestRange, ...]:
    """Check a ``backup_manifest`` against its own checksum and return its WAL-Ranges, oldest timeline first.

    ``manifest`` is read from its present position to its end in bounded memory, however many files it names
    (https://www.postgresql.org/docs/current/backup-manifest-format.html).

    Raises: BaseBackupError.
    """
    tail = _checked_tail(manifest)
    found = _RANGES.search(tail)
    if found is None:
        raise BaseBackupError("'backup_manifest' has no WAL-Ranges")
    try:
        ranges = [_range(item) for item in json.loads(found[1])]
    except (ValueError, KeyError, TypeError) as error:
        raise BaseBackupError(f"'backup_manifest' has WAL-Ranges that cannot be read: {error}") from error
    return tuple(sorted(ranges, key=lambda item: (item.start_lsn, item.timeline)))


def _range(item: dict[str, str | int]) -> ManifestRange:
    return ManifestRange(int(item["Timeline"]), Lsn.parse(str(item["Start-LSN"])), Lsn.parse(str(item["End-LSN"])))


def _checked_tail(manifest: BinaryIO) -> bytes:
    """Compare the SHA-256 in the last line with that of all lines before it, and return the file's end."""
    digest, tail = hashlib.sha256(), b""
    while block := manifest.read(_READ_BYTES):
        tail += block
        digest.update(tail[:-_TAIL_BYTES])
        tail = tail[-_TAIL_BYTES:]
    found = _CHECKSUM.search(tail)
    if found is None:
        raise BaseBackupError("'backup_manifest' does not end with its checksum: it was cut short")
    digest.update(tail[: found.start()])
    if digest.hexdigest() != found[1].decode("ascii"):
        raise BaseBackupError("'backup_manifest' does not match its own checksum")
    return tail
