"""Makes and reads the object keys of a store, in this one place.

``<prefix>/<cluster>/<system identifier>/wal/<timeline>/<timeline+log>/<file name><codec>[.age]``
``<prefix>/<cluster>/<system identifier>/wal/<timeline>/<timeline>.history<codec>[.age]``
``<prefix>/<cluster>/<system identifier>/base/<backup id>/<part>``, the part ``manifest.json`` written last.
``<prefix>/<cluster>/<system identifier>/lease/<token>.<number>.json`` while a base backup is being stored.
``<prefix>/<cluster>/<system identifier>/tail/<timeline>/<segment>/<from>-<to><codec>[.age]``, pieces of a segment that
is not archived yet; the offsets have eight hex digits.
``<prefix>/<cluster>/<system identifier>/relations/<moment>.json<codec>[.age]``, the relations that there were then.

A cluster that is made again under the same name has another system identifier, which keeps it apart from the old one.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import SettingsError
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name

ENCRYPTED_SUFFIX: Final = ".age"
MANIFEST_NAME: Final = "manifest.json"
_LEASE: Final = re.compile(r"([0-9a-f]{16})\.([0-9]{6,9})\.json\Z")
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_SUFFIXES: Final = {codec.suffix: codec for codec in Codec if codec.suffix}
_ENDINGS: Final = frozenset(f"{codec.suffix}{age}" for codec in Codec for age in ("", ENCRYPTED_SUFFIX))
_DIGITS: Final = re.compile(r"[0-9A-F]{8}\Z")
_OFFSETS: Final = re.compile(r"([0-9A-F]{8})-([0-9A-F]{8})\Z")
_LIST_ENDING: Final = ".json"
_MOMENT: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class StoredName:
    """The file that a WAL object's key names, and how it was encoded."""

    file: WalFileName
    codec: Codec
    encrypted: bool


@dataclass(frozen=True, slots=True)
class PieceName:
    """The segment and the bytes of it that a piece holds: from ``from_offset`` up to, not including, ``to_offset``."""

    segment: WalFileName
    from_offset: int
    to_offset: int


@dataclass(frozen=True, slots=True)
class StoredPieceName:
    """The piece that an object's key names, and how it was encoded."""

    piece: PieceName
    codec: Codec
    encrypted: bool


@dataclass(frozen=True, slots=True)
class StoredListName:
    """The list of relations that an object's key names by its moment, and how it was encoded."""

    moment: str
    codec: Codec
    encrypted: bool


def check_key_part(what: str, value: str) -> str:
    """Return ``value`` where it can be one part of a key; ``what`` names it in the error.

    Raises: SettingsError.
    """
    if not _PART.match(value):
        raise SettingsError(
            f"{what} '{value}' cannot be part of an object key",
            hint="Use letters, digits, '.', '_' and '-', and begin with a letter or a digit.",
        )
    return value


@lru_cache  # called for each key of a listing
def cluster_prefix(prefix: str, cluster: str) -> str:
    """Return the key prefix of a cluster's name, for all its system identifiers; ends in ``/``."""
    parts = [part for part in prefix.split("/") if part]
    for part in parts:
        check_key_part("the prefix's part", part)
    return "/".join([*parts, check_key_part("the cluster's name", cluster)]) + "/"


def system_identifier_of(prefix: str, cluster: str, key: str) -> int | None:
    """Read the system identifier from a key below ``cluster_prefix``; None where the key is not ours."""
    head = cluster_prefix(prefix, cluster)
    digits = key.removeprefix(head).split("/", 1)[0] if key.startswith(head) else ""
    return int(digits) if re.fullmatch(r"[0-9]{1,20}", digits) else None


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one cluster with one system identifier."""

    prefix: str
    cluster: str
    system_identifier: int

    @property
    def root(self) -> str:
        """The prefix of all keys of this system identifier; ends in ``/``."""
        return f"{cluster_prefix(self.prefix, self.cluster)}{self.system_identifier}/"

    @property
    def wal_root(self) -> str:
        """The prefix of the WAL archive; ends in ``/``."""
        return f"{self.root}wal/"

    @property
    def base_root(self) -> str:
        """The prefix of all base backups; ends in ``/``."""
        return f"{self.root}base/"

    @property
    def tail_root(self) -> str:
        """The prefix of all pieces; ends in ``/``."""
        return f"{self.root}tail/"

    @property
    def relations_root(self) -> str:
        """The prefix of all lists of relations; ends in ``/``."""
        return f"{self.root}relations/"

    @property
    def lease_root(self) -> str:
        """The prefix of all leases; ends in ``/``."""
        return f"{self.root}lease/"

    def lease_key(self, token: str, number: int) -> str:
        """Return the key of one sign of life of the holder ``token``, which has 16 hex digits."""
        return f"{self.lease_root}{token}.{number:06d}.json"

    def parse_lease_key(self, key: str) -> tuple[str, int] | None:
        """Read the holder and the number from a lease's key; None where it is none."""
        found = _LEASE.match(key.removeprefix(self.lease_root)) if key.startswith(self.lease_root) else None
        return None if found is None else (found[1], int(found[2]))

    def wal_folder(self, file: WalFileName) -> str:
        """Return the folder of a file's object; ends in ``/``."""
        timeline = f"{self.wal_root}{file.timeline:08X}/"
        return timeline if file.kind is FileKind.HISTORY else f"{timeline}{file.name[:16]}/"

    def wal_stem(self, file: WalFileName) -> str:
        """Return the part of the key that does not depend on the encoding: list it to find any copy of the file."""
        return f"{self.wal_folder(file)}{file.name}"

    def wal_key(self, file: WalFileName, codec: Codec, *, encrypted: bool) -> str:
        """Return the key of a file's object."""
        return f"{self.wal_stem(file)}{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"

    def parse_wal_key(self, key: str) -> StoredName | None:
        """Read a WAL object's key; None where it is not exactly the key that ``wal_key`` makes."""
        stem, codec, encrypted = _split_endings(key.rsplit("/", 1)[-1])
        file = parse_file_name(stem)
        if file is None or self.wal_key(file, codec, encrypted=encrypted) != key:
            return None
        return StoredName(file, codec, encrypted)

    def tail_folder(self, segment: WalFileName) -> str:
        """Return the folder of a segment's pieces; ends in ``/``."""
        return f"{self.tail_root}{segment.timeline:08X}/{segment.name}/"

    def piece_key(self, piece: PieceName, codec: Codec, *, encrypted: bool) -> str:
        """Return the key of a piece's object."""
        offsets = f"{piece.from_offset:08X}-{piece.to_offset:08X}"
        return f"{self.tail_folder(piece.segment)}{offsets}{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"

    def parse_piece_key(self, key: str) -> StoredPieceName | None:
        """Read a piece's key; None where it is not exactly the key that ``piece_key`` makes."""
        if not key.startswith(self.tail_root):
            return None
        folder, _, rest = key.rpartition("/")
        stem, codec, encrypted = _split_endings(rest)
        segment, offsets = parse_file_name(folder.rpartition("/")[2]), _OFFSETS.match(stem)
        if segment is None or segment.kind is not FileKind.SEGMENT or offsets is None:
            return None
        piece = PieceName(segment, int(offsets[1], 16), int(offsets[2], 16))
        if piece.from_offset >= piece.to_offset or self.piece_key(piece, codec, encrypted=encrypted) != key:
            return None
        return StoredPieceName(piece, codec, encrypted)

    def relations_key(self, moment: str, codec: Codec, *, encrypted: bool) -> str:
        """Return the key of the list of relations of a moment, such as ``20261122T174500Z``."""
        return f"{self.relations_root}{moment}{_LIST_ENDING}{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"

    def parse_relations_key(self, key: str) -> StoredListName | None:
        """Read the key of a list of relations; None where it is not exactly the key that ``relations_key`` makes."""
        if not key.startswith(self.relations_root):
            return None
        stem, codec, encrypted = _split_endings(key.rsplit("/", 1)[-1])
        moment = stem.removesuffix(_LIST_ENDING)
        is_ours = read_moment_name(moment) is not None and self.relations_key(moment, codec, encrypted=encrypted) == key
        return StoredListName(moment, codec, encrypted) if is_ours else None

    def base_key(self, backup_id: str, part: str) -> str:
        """Return the key of one object of a base backup."""
        return f"{self.base_root}{check_key_part('the backup id', backup_id)}/{check_key_part('the part', part)}"

    def manifest_key(self, backup_id: str) -> str:
        """Return the key of a base backup's manifest: without that object, the base backup does not exist."""
        return self.base_key(backup_id, MANIFEST_NAME)

    def backup_id_of(self, key: str) -> str | None:
        """Read the backup id from any key below ``base_root``; None where the key is not ours."""
        parts = key.removeprefix(self.base_root).split("/")
        return parts[0] if key.startswith(self.base_root) and len(parts) == 2 and parts[0] else None


def moment_name(at: datetime) -> str:
    """Return a moment as keys and the ids of base backups have it, in UTC and to the second: ``20261122T174500Z``."""
    return at.astimezone(UTC).strftime(_MOMENT)


def read_moment_name(text: str) -> datetime | None:
    """Read a moment that ``moment_name`` wrote; None where it is none."""
    try:
        at = datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return at if moment_name(at) == text else None


def _split_endings(name: str) -> tuple[str, Codec, bool]:
    """Split the endings of codec and encryption off an object's name."""
    encrypted = name.endswith(ENCRYPTED_SUFFIX)
    name = name.removesuffix(ENCRYPTED_SUFFIX)
    codec = next((codec for suffix, codec in _SUFFIXES.items() if name.endswith(suffix)), Codec.NONE)
    return name.removesuffix(codec.suffix), codec, encrypted


class WalKeyReader:
    """Reads file names from the keys of a listing, as ``parse_wal_key`` does, but faster.

    A listing goes folder by folder, and nearly all keys are segments: a folder's name is read once for all its keys.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._root = layout.wal_root
        self._folder = ""
        self._log = ""

    def name(self, key: str) -> str | None:
        """Return the name of the file whose object has this key; None where the key is not ours."""
        folder, _, rest = key.rpartition("/")
        if folder != self._folder:
            self._folder, self._log = folder, self._log_of(folder)
        if self._log and rest[:16] == self._log and rest[24:] in _ENDINGS and _DIGITS.match(rest, 16, 24):
            return rest[:24]
        parsed = self._layout.parse_wal_key(key)
        return None if parsed is None else parsed.file.name

    def _log_of(self, folder: str) -> str:
        """Return the sixteen digits with which a folder's segments begin; empty where the folder is for no segments."""
        log = folder.rpartition("/")[2]
        first = parse_file_name(f"{log}00000000")
        is_ours = first is not None and first.kind is FileKind.SEGMENT and folder == f"{self._root}{log[:8]}/{log}"
        return log if is_ours else ""
