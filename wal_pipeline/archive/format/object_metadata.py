"""Writes and reads the metadata of a WAL object, from which alone the catalog can be rebuilt."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from wal_pipeline.archive.records import Codec, CommitTimes, Encoding, WalFile
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.joint import Joint, SegmentJoints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import parse_file_name

FORMAT: Final = "1"
_FORMAT: Final = "wal-format"
# B2 keeps at most ten pairs with an object, so related values share one pair, as ``name=value`` words.
_GROUPS: Final = {
    "wal-file": ("name", "system-identifier", "size", "sha256", "spooled-at"),
    "wal-segment": (
        *("segment-size", "server-major", "start-lsn", "end-lsn"),
        *("first-timeline", "own-from", "begins", "ends"),  # absent from objects of earlier versions
    ),
    "wal-commits": ("commit-times", "first-commit-at", "last-commit-at"),
    "wal-stored": ("codec", "encrypted", "stored-size", "stored-sha256", "stored-md5"),
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
        "codec": encoding.codec.value,
        "encrypted": "yes" if encoding.encrypted else "no",
        "stored-size": encoding.size_bytes,
        "stored-sha256": encoding.sha256,
        "stored-md5": encoding.md5,
    }
    values |= _joints_to_words(file.joints)
    texts = {
        group: " ".join(f"{name}={values[name]}" for name in names if values.get(name) is not None)
        for group, names in _GROUPS.items()
    }
    return {_FORMAT: FORMAT} | {group: text for group, text in texts.items() if text}


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
        values = _values(metadata)
        return _file(values), _encoding(values)
    except (KeyError, ValueError) as error:
        raise InvalidWalFileError(
            f"object '{key}' has metadata that cannot be read: {type(error).__name__} {error}",
            hint="The object was not written by wal-pipeline, or its metadata was lost in a copy between stores.",
        ) from error


def _values(metadata: Mapping[str, str]) -> dict[str, str]:
    if metadata[_FORMAT] != FORMAT:
        raise ValueError(f"format {metadata[_FORMAT]}")
    words = [word for group in _GROUPS for word in metadata.get(group, "").split()]
    return dict(word.split("=", 1) for word in words)


def _file(metadata: Mapping[str, str]) -> WalFile:
    name = parse_file_name(metadata["name"])
    if name is None:
        raise ValueError(f"name {metadata['name']}")
    return WalFile(
        name=name.name,
        kind=name.kind,
        system_identifier=_natural(metadata["system-identifier"]),
        timeline=name.timeline,
        size_bytes=_natural(metadata["size"]),
        sha256=_hex(metadata["sha256"], 64),
        spooled_at=_moment(metadata["spooled-at"]),
        wal_segment_size=_int(metadata, "segment-size"),
        server_major=_int(metadata, "server-major"),
        start_lsn=_lsn(metadata, "start-lsn"),
        end_lsn=_lsn(metadata, "end-lsn"),
        commit_times=CommitTimes(metadata["commit-times"]),
        first_commit_at=_time(metadata, "first-commit-at"),
        last_commit_at=_time(metadata, "last-commit-at"),
        joints=_joints(metadata),
    )


def _joints(metadata: Mapping[str, str]) -> SegmentJoints | None:
    first_timeline = _int(metadata, "first-timeline")
    if first_timeline is None:
        return None
    begins, ends = (Joint.parse(text) if (text := metadata.get(name)) else None for name in ("begins", "ends"))
    return SegmentJoints(first_timeline, _lsn(metadata, "own-from"), begins, ends)


def _encoding(metadata: Mapping[str, str]) -> Encoding:
    return Encoding(
        codec=Codec(metadata["codec"]),
        encrypted={"yes": True, "no": False}[metadata["encrypted"]],
        size_bytes=_natural(metadata["stored-size"]),
        sha256=_hex(metadata["stored-sha256"], 64),
        md5=_hex(metadata["stored-md5"], 32),
    )


def _int(metadata: Mapping[str, str], name: str) -> int | None:
    value = metadata.get(name)
    return None if value is None else _natural(value)


def _lsn(metadata: Mapping[str, str], name: str) -> Lsn | None:
    value = metadata.get(name)
    return None if value is None else Lsn.parse(value)


def _time(metadata: Mapping[str, str], name: str) -> datetime | None:
    value = metadata.get(name)
    return None if value is None else _moment(value)


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"number {text!a}")
    return int(text)


def _hex(text: str, digits: int) -> str:
    if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
        raise ValueError(f"digest {text!a}")
    return text


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone {text!a}")
    return moment
