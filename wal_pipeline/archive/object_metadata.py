"""What each WAL object says of itself: the catalog can be made again from these alone."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from wal_pipeline.archive.records import Codec, CommitTimes, Encoding, WalFile
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import parse_file_name

FORMAT: Final = "1"
_P: Final = "wal-"


def to_metadata(file: WalFile, encoding: Encoding) -> dict[str, str]:
    """Describe a file and its encoding as S3 user metadata: lower-case names, ASCII values, under 2 KiB."""
    values: dict[str, object | None] = {
        "format": FORMAT,
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
        "codec": encoding.codec.value,
        "encrypted": "yes" if encoding.encrypted else "no",
        "stored-size": encoding.size_bytes,
        "stored-sha256": encoding.sha256,
        "stored-md5": encoding.md5,
    }
    return {_P + name: str(value) for name, value in values.items() if value is not None}


def from_metadata(key: str, metadata: Mapping[str, str]) -> tuple[WalFile, Encoding]:
    """Read what ``to_metadata`` wrote; ``key`` names the object in the error.

    Raises: InvalidWalFileError where a value is missing or cannot be read.
    """
    try:
        return _file(metadata), _encoding(metadata)
    except (KeyError, ValueError) as error:
        raise InvalidWalFileError(
            f"object '{key}' has metadata that cannot be read: {type(error).__name__} {error}",
            hint="The object was not written by wal-pipeline, or its metadata was lost in a copy between stores.",
        ) from error


def _file(metadata: Mapping[str, str]) -> WalFile:
    if metadata[_P + "format"] != FORMAT:
        raise ValueError(f"format {metadata[_P + 'format']}")
    name = parse_file_name(metadata[_P + "name"])
    if name is None:
        raise ValueError(f"name {metadata[_P + 'name']}")
    return WalFile(
        name=name.name,
        kind=name.kind,
        system_identifier=int(metadata[_P + "system-identifier"]),
        timeline=name.timeline,
        size_bytes=int(metadata[_P + "size"]),
        sha256=metadata[_P + "sha256"],
        spooled_at=datetime.fromisoformat(metadata[_P + "spooled-at"]),
        wal_segment_size=_int(metadata, "segment-size"),
        server_major=_int(metadata, "server-major"),
        start_lsn=_lsn(metadata, "start-lsn"),
        end_lsn=_lsn(metadata, "end-lsn"),
        commit_times=CommitTimes(metadata[_P + "commit-times"]),
        first_commit_at=_time(metadata, "first-commit-at"),
        last_commit_at=_time(metadata, "last-commit-at"),
    )


def _encoding(metadata: Mapping[str, str]) -> Encoding:
    return Encoding(
        codec=Codec(metadata[_P + "codec"]),
        encrypted=metadata[_P + "encrypted"] == "yes",
        size_bytes=int(metadata[_P + "stored-size"]),
        sha256=metadata[_P + "stored-sha256"],
        md5=metadata[_P + "stored-md5"],
    )


def _int(metadata: Mapping[str, str], name: str) -> int | None:
    value = metadata.get(_P + name)
    return None if value is None else int(value)


def _lsn(metadata: Mapping[str, str], name: str) -> Lsn | None:
    value = metadata.get(_P + name)
    return None if value is None else Lsn.parse(value)


def _time(metadata: Mapping[str, str], name: str) -> datetime | None:
    value = metadata.get(_P + name)
    return None if value is None else datetime.fromisoformat(value)
