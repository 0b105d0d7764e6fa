"""Records where a base backup's tars are cut into volumes, and which databases' files each volume holds.

The object ``tar_cuts<codec>[.age]`` of a base backup holds JSON: for each tar, by its name, one entry for each volume
but the first. An entry is null where the volume begins between two members. Else it has the ``name`` and
``size_bytes`` of the member that is cut, and ``offset_bytes``, the number of its bytes before the cut. The names of
files keep it out of ``manifest.json``, which is never encrypted. A restore without it extracts one volume at a time.

The key ``databases`` beside the tars' names holds, for each tar, the list of its volumes' databases: the oids of those
that have a member in the volume, or a part of one, in ascending order; 0 stands for any member of no database.
A restore of some databases leaves out the volumes that hold nothing of them. Base backups of earlier versions lack it,
and earlier versions of the program pass over it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.errors import BaseBackupError

# A name in PostgreSQL's tars has at most 256 bytes, each escaped as six; and a volume holds a thousand databases' oids.
MAX_BYTES_A_VOLUME: Final = 16_384
NO_DATABASE: Final = 0
_DATABASES: Final = "databases"  # no tar has this name: it is "base" or digits


@dataclass(frozen=True, slots=True)
class TarCut:
    """A volume that begins within a member: the member's name, its size, and how many of its bytes come before."""

    name: str
    size_bytes: int
    offset_bytes: int


Cuts = Sequence[TarCut | None]
VolumeDatabases = Sequence[frozenset[int]]


def cuts_to_json(cuts: Mapping[str, Cuts], databases: Mapping[str, VolumeDatabases] | None = None) -> bytes:
    """Return the object's content: cuts, and the databases of each volume, by the tar's name."""
    values: dict[str, Any] = {
        name: [None if cut is None else asdict(cut) for cut in some] for name, some in cuts.items()
    }
    if databases is not None:
        values[_DATABASES] = {name: [sorted(oids) for oids in some] for name, some in databases.items()}
    return json.dumps(values, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def parse_cuts(data: bytes, manifest: BaseBackupManifest) -> dict[str, tuple[TarCut | None, ...]]:
    """Read the object's content, which must fit the manifest. Raises: BaseBackupError."""
    try:
        values = json.loads(data)
        return {tar.name: tuple(map(_cut, _list(values[tar.name], len(tar.objects) - 1))) for tar in manifest.tars}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BaseBackupError(
            f"the cuts of base backup '{manifest.backup_id}' cannot be used: {type(error).__name__}: {error}"
        ) from error


def parse_volume_databases(data: bytes, manifest: BaseBackupManifest) -> dict[str, tuple[frozenset[int], ...]] | None:
    """Read which databases each tar's volumes hold; None in the base backup of an earlier version.

    Raises: BaseBackupError where it does not fit the manifest.
    """
    try:
        values = json.loads(data)
        if _DATABASES not in values:
            return None
        found = values[_DATABASES]
        return {tar.name: tuple(map(_oids, _list(found[tar.name], len(tar.objects)))) for tar in manifest.tars}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BaseBackupError(
            f"the volumes' databases of base backup '{manifest.backup_id}' cannot be used: "
            f"{type(error).__name__}: {error}"
        ) from error


def _oids(value: object) -> frozenset[int]:
    if not isinstance(value, list) or any(type(oid) is not int or oid < 0 for oid in value):
        raise ValueError(f"{value!r} is no list of oids")
    return frozenset(value)


def _list(value: object, length: int) -> list[object]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"expected {length} entries, found {len(value) if isinstance(value, list) else value!r}")
    return value


def _cut(value: object) -> TarCut | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"name", "size_bytes", "offset_bytes"}:
        raise ValueError(f"{value!r} is not a cut")
    name, size, offset = value["name"], value["size_bytes"], value["offset_bytes"]
    if not isinstance(name, str) or type(size) is not int or type(offset) is not int or not 0 <= offset < size:
        raise ValueError(f"{value!r} is not a cut")
    return TarCut(name, size, offset)
