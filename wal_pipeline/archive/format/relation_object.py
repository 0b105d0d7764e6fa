"""Writes and reads the metadata of the object that holds a list of relations."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.words import (
    STORED_GROUP,
    encoding_words,
    join_words,
    read_encoding,
    read_hex,
    read_moment,
    read_natural,
    read_words,
)
from wal_pipeline.archive.records import Encoding
from wal_pipeline.errors import RelationListError

_GROUPS: Final = {"relation-list": ("taken-at", "system-identifier", "size", "sha256"), **STORED_GROUP}


@dataclass(frozen=True, slots=True)
class DescribedList:
    """The content of a list's object: whose it is, its size in bytes and its SHA-256 as hex digits."""

    taken_at: datetime
    system_identifier: int
    size_bytes: int
    sha256: str


def list_to_metadata(described: DescribedList, encoding: Encoding) -> dict[str, str]:
    """Describe a list and its encoding as S3 user metadata."""
    values: dict[str, object | None] = {
        "taken-at": described.taken_at.isoformat(),
        "system-identifier": described.system_identifier,
        "size": described.size_bytes,
        "sha256": described.sha256,
    }
    return join_words(_GROUPS, values | encoding_words(encoding))


def list_from_metadata(key: str, metadata: Mapping[str, str]) -> tuple[DescribedList, Encoding]:
    """Read the metadata that ``list_to_metadata`` wrote; ``key`` names the object in the error.

    Raises: RelationListError where a value is missing or cannot be read.
    """
    try:
        words = read_words(_GROUPS, metadata)
        described = DescribedList(
            read_moment(words["taken-at"]),
            read_natural(words["system-identifier"]),
            read_natural(words["size"]),
            read_hex(words["sha256"], 64),
        )
        return described, read_encoding(words)
    except (KeyError, ValueError) as error:
        raise RelationListError(
            f"object '{key}' has metadata that cannot be read: {type(error).__name__} {error}",
            hint="The object was not written by wal-pipeline, or its metadata was lost in a copy between stores.",
        ) from error
