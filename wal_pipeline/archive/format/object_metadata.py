"""Writes and reads the metadata of a WAL object, from which alone the catalog can be rebuilt."""

from collections.abc import Mapping
from typing import Final

from wal_pipeline.archive.format.words import (
    COMMIT_GROUP,
    STORED_GROUP,
    encoding_words,
    join_words,
    optional_lsn,
    optional_moment,
    optional_natural,
    read_encoding,
    read_hex,
    read_moment,
    read_natural,
    read_words,
)
from wal_pipeline.archive.records import CommitTimes, Encoding, WalFile
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.joint import Joint, SegmentJoints
from wal_pipeline.wal.names import parse_file_name

_GROUPS: Final = {
    "wal-file": ("name", "system-identifier", "size", "sha256", "spooled-at"),
    "wal-segment": (
        *("segment-size", "server-major", "start-lsn", "end-lsn"),
        *("first-timeline", "own-from", "begins", "ends"),  # absent from objects of earlier versions
    ),
    **COMMIT_GROUP,
    **STORED_GROUP,
}


def to_metadata(file: WalFile, encoding: Encoding) -> dict[str, str]:
    """Describe a file and its encoding as S3 user metadata: five pairs, lower-case names, ASCII, under 2 KiB."""
    values: dict[str, object | None] = {
        "name": file.name,
        "system-identifier": file.system_identifier,
        "size": file.size_bytes,
        "sha256": file.sha256,
        "spooled-at": file.spooled_at.isoformat(),
        "segment-size": file.wal_segment_size,
        "server-major": file.server_major,
        "start-lsn": file.start_lsn,
        "end-lsn": file.end_lsn,
        "commit-times": file.commit_times.value,
        "first-commit-at": file.first_commit_at and file.first_commit_at.isoformat(),
        "last-commit-at": file.last_commit_at and file.last_commit_at.isoformat(),
    }
    return join_words(_GROUPS, values | _joints_to_words(file.joints) | encoding_words(encoding))


def _joints_to_words(joints: SegmentJoints | None) -> dict[str, object | None]:
    if joints is None:
        return {}
    return {
        "first-timeline": joints.first_timeline,
        "own-from": joints.own_from,
        "begins": joints.begins,
        "ends": joints.ends,
    }


def from_metadata(key: str, metadata: Mapping[str, str]) -> tuple[WalFile, Encoding]:
    """Read the metadata that ``to_metadata`` wrote; ``key`` names the object in the error.

    Raises: InvalidWalFileError where a value is missing or cannot be read.
    """
    try:
        values = read_words(_GROUPS, metadata)
        return _file(values), read_encoding(values)
    except (KeyError, ValueError) as error:
        raise InvalidWalFileError(
            f"object '{key}' has metadata that cannot be read: {type(error).__name__} {error}",
            hint="The object was not written by wal-pipeline, or its metadata was lost in a copy between stores.",
        ) from error


def _file(metadata: Mapping[str, str]) -> WalFile:
    name = parse_file_name(metadata["name"])
    if name is None:
        raise ValueError(f"name {metadata['name']}")
    return WalFile(
        name=name.name,
        kind=name.kind,
        system_identifier=read_natural(metadata["system-identifier"]),
        timeline=name.timeline,
        size_bytes=read_natural(metadata["size"]),
        sha256=read_hex(metadata["sha256"], 64),
        spooled_at=read_moment(metadata["spooled-at"]),
        wal_segment_size=optional_natural(metadata, "segment-size"),
        server_major=optional_natural(metadata, "server-major"),
        start_lsn=optional_lsn(metadata, "start-lsn"),
        end_lsn=optional_lsn(metadata, "end-lsn"),
        commit_times=CommitTimes(metadata["commit-times"]),
        first_commit_at=optional_moment(metadata, "first-commit-at"),
        last_commit_at=optional_moment(metadata, "last-commit-at"),
        joints=_joints(metadata),
    )


def _joints(metadata: Mapping[str, str]) -> SegmentJoints | None:
    first_timeline = optional_natural(metadata, "first-timeline")
    if first_timeline is None:
        return None
    begins, ends = (Joint.parse(text) if (text := metadata.get(name)) else None for name in ("begins", "ends"))
    return SegmentJoints(first_timeline, optional_lsn(metadata, "own-from"), begins, ends)
