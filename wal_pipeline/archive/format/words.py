"""Writes values as the words of an object's metadata and reads them back, and reads the fields of its JSON."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from wal_pipeline.archive.records import Codec, Encoding
from wal_pipeline.wal.lsn import Lsn

FORMAT: Final = "1"
METADATA_MARK: Final = "wal-format"  # each object that this program wrote has it
COMMIT_GROUP: Final = {"wal-commits": ("commit-times", "first-commit-at", "last-commit-at")}
STORED_GROUP: Final = {"wal-stored": ("codec", "encrypted", "stored-size", "stored-sha256", "stored-md5")}


def join_words(groups: Mapping[str, Iterable[str]], values: Mapping[str, object | None]) -> dict[str, str]:
    """Return metadata with one pair for each group, whose value is ``name=value`` words; None is left out.

    B2 keeps at most ten pairs with an object, so related values share one.
    """
    texts = {
        group: " ".join(f"{name}={values[name]}" for name in names if values.get(name) is not None)
        for group, names in groups.items()
    }
    return {METADATA_MARK: FORMAT} | {group: text for group, text in texts.items() if text}


def read_words(groups: Iterable[str], metadata: Mapping[str, str]) -> dict[str, str]:
    """Read the words that ``join_words`` wrote. Raises: KeyError, ValueError where they are not of this format."""
    if metadata[METADATA_MARK] != FORMAT:
        raise ValueError(f"format {metadata[METADATA_MARK]}")
    words = [word for group in groups for word in metadata.get(group, "").split()]
    return dict(word.split("=", 1) for word in words)


def encoding_words(encoding: Encoding) -> dict[str, object | None]:
    """Return the words of how an object's bytes were encoded."""
    return {
        "codec": encoding.codec.value,
        "encrypted": "yes" if encoding.encrypted else "no",
        "stored-size": encoding.size_bytes,
        "stored-sha256": encoding.sha256,
        "stored-md5": encoding.md5,
    }


def read_encoding(words: Mapping[str, str]) -> Encoding:
    """Read what ``encoding_words`` wrote. Raises: KeyError, ValueError."""
    return Encoding(
        codec=Codec(words["codec"]),
        encrypted={"yes": True, "no": False}[words["encrypted"]],
        size_bytes=read_natural(words["stored-size"]),
        sha256=read_hex(words["stored-sha256"], 64),
        md5=read_hex(words["stored-md5"], 32),
    )


def optional_natural(words: Mapping[str, str], name: str) -> int | None:
    """Read a number, None where the word is absent. Raises: ValueError."""
    value = words.get(name)
    return None if value is None else read_natural(value)


def optional_lsn(words: Mapping[str, str], name: str) -> Lsn | None:
    """Read an LSN, None where the word is absent. Raises: ValueError."""
    value = words.get(name)
    return None if value is None else Lsn.parse(value)


def optional_moment(words: Mapping[str, str], name: str) -> datetime | None:
    """Read a moment, None where the word is absent. Raises: ValueError."""
    value = words.get(name)
    return None if value is None else read_moment(value)


def read_natural(text: str) -> int:
    """Read a number without a sign. Raises: ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"number {text!a}")
    return int(text)


def read_hex(text: str, digits: int) -> str:
    """Read a digest of so many lower-case hex digits. Raises: ValueError."""
    if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
        raise ValueError(f"digest {text!a}")
    return text


def read_moment(text: str) -> datetime:
    """Read a moment in ISO 8601 with its zone. Raises: ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone {text!a}")
    return moment


def typed_fields(value: object, what: str, **types: type) -> dict[str, Any]:
    """Return a JSON object that has exactly these keys, each with a value of its type; ``what`` names it in the error.

    Raises: ValueError.
    """
    if not isinstance(value, dict) or value.keys() != types.keys():
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{what}: expected the keys {sorted(types)}, found {found}")
    for name, expected in types.items():
        if type(value[name]) is not expected:
            raise ValueError(f"{what}: '{name}' is {type(value[name]).__name__}, expected {expected.__name__}")
    return value
