"""Defines a piece, a part of a segment that is not archived yet, and writes and reads its object's metadata."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.keys import PieceName
from wal_pipeline.archive.format.words import (
    COMMIT_GROUP,
    STORED_GROUP,
    encoding_words,
    join_words,
    optional_moment,
    optional_natural,
    read_encoding,
    read_hex,
    read_moment,
    read_natural,
    read_words,
)
from wal_pipeline.archive.records import CommitTimes, Encoding
from wal_pipeline.errors import InvalidWalFileError, InvalidWalNameError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, WalFileName, check_wal_segment_size, parse_file_name

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_GROUPS: Final = {
    "piece-place": ("segment", "system-identifier", "segment-size", "server-major", "from", "to", "flushed-at"),
    "piece-content": ("sha256", "before-sha256", "through-sha256"),
    **COMMIT_GROUP,
    **STORED_GROUP,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes of a segment from ``from_offset`` up to, not including, ``to_offset``.

    ``sha256`` (64 hex digits) is of its content, ``before_sha256`` of all content of the segment before it (of nothing:
    ``EMPTY_SHA256``), ``through_sha256`` of all content up to its end: one piece continues another where the other's
    ``through_sha256`` is its ``before_sha256``. ``flushed_at`` is a moment of the server's clock: each commit that the
    server had acknowledged then lies before the piece's end. ``first_commit_at`` and ``last_commit_at`` are
    of the commits whose records end in it, where ``commit_times`` is KNOWN. ``server_major`` is None where it is not
    known. Sizes are in bytes.
    """

    segment: WalFileName
    system_identifier: int
    wal_segment_size: int
    server_major: int | None
    from_offset: int
    to_offset: int
    flushed_at: datetime
    sha256: str
    before_sha256: str
    through_sha256: str
    commit_times: CommitTimes
    first_commit_at: datetime | None = None
    last_commit_at: datetime | None = None

    @property
    def name(self) -> PieceName:
        """The part of its description that its key says."""
        return PieceName(self.segment, self.from_offset, self.to_offset)

    @property
    def size_bytes(self) -> int:
        """The size of its content."""
        return self.to_offset - self.from_offset

    @property
    def start_lsn(self) -> Lsn:
        """The LSN of its first byte."""
        return Lsn(self.segment.start_lsn(self.wal_segment_size) + self.from_offset)

    @property
    def end_lsn(self) -> Lsn:
        """The first LSN after it."""
        return Lsn(self.segment.start_lsn(self.wal_segment_size) + self.to_offset)


def piece_to_metadata(piece: Piece, encoding: Encoding) -> dict[str, str]:
    """Describe a piece and its encoding as S3 user metadata: five pairs, lower-case names, ASCII, under 2 KiB."""
    values: dict[str, object | None] = {
        "segment": piece.segment.name,
        "system-identifier": piece.system_identifier,
        "segment-size": piece.wal_segment_size,
        "server-major": piece.server_major,
        "from": piece.from_offset,
        "to": piece.to_offset,
        "flushed-at": piece.flushed_at.isoformat(),
        "sha256": piece.sha256,
        "before-sha256": piece.before_sha256,
        "through-sha256": piece.through_sha256,
        "commit-times": piece.commit_times.value,
        "first-commit-at": piece.first_commit_at and piece.first_commit_at.isoformat(),
        "last-commit-at": piece.last_commit_at and piece.last_commit_at.isoformat(),
    }
    return join_words(_GROUPS, values | encoding_words(encoding))


def piece_from_metadata(key: str, metadata: Mapping[str, str]) -> tuple[Piece, Encoding]:
    """Read the metadata that ``piece_to_metadata`` wrote; ``key`` names the object in the error.

    Raises: InvalidWalFileError where a value is missing or cannot be read.
    """
    try:
        words = read_words(_GROUPS, metadata)
        return _piece(words), read_encoding(words)
    except (KeyError, ValueError, InvalidWalNameError) as error:
        raise InvalidWalFileError(
            f"piece '{key}' has metadata that cannot be read: {type(error).__name__} {error}",
            hint="The object was not written by wal-pipeline, or its metadata was lost in a copy between stores.",
        ) from error


def _piece(words: Mapping[str, str]) -> Piece:
    segment = parse_file_name(words["segment"])
    if segment is None or segment.kind is not FileKind.SEGMENT:
        raise ValueError(f"segment {words['segment']}")
    size = read_natural(words["segment-size"])
    check_wal_segment_size(size)
    start, end = read_natural(words["from"]), read_natural(words["to"])
    if not 0 <= start < end <= size:
        raise ValueError(f"from {start} to {end} of {size}")
    return Piece(
        segment=segment,
        system_identifier=read_natural(words["system-identifier"]),
        wal_segment_size=size,
        server_major=optional_natural(words, "server-major"),
        from_offset=start,
        to_offset=end,
        flushed_at=read_moment(words["flushed-at"]),
        sha256=read_hex(words["sha256"], 64),
        before_sha256=read_hex(words["before-sha256"], 64),
        through_sha256=read_hex(words["through-sha256"], 64),
        commit_times=CommitTimes(words["commit-times"]),
        first_commit_at=optional_moment(words, "first-commit-at"),
        last_commit_at=optional_moment(words, "last-commit-at"),
    )
