"""Checks, without the program, that a base backup which was called restorable is whole on the store."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

from chaos.world import World


@dataclass(frozen=True, slots=True)
class TakenBackup:
    """A base backup by its own account: the stores that hold it, and those from which it can be restored."""

    process: str
    backup_id: str
    stored_on: frozenset[str]
    restorable_on: frozenset[str]

    @classmethod
    def parse(cls, process: str, summary: Mapping[str, Any]) -> "TakenBackup":
        """Read the JSON that ``backup --json`` prints."""
        stores = summary["stores"]
        return cls(
            process,
            summary["backup_id"],
            frozenset(name for name, one in stores.items() if one["stored"]),
            frozenset(name for name, one in stores.items() if one["restorable"]),
        )


def not_whole(world: World, taken: Sequence[TakenBackup]) -> Iterator[str]:
    """Yield each base backup that was called restorable and lacks an object there, or has another one's bytes."""
    for backup in taken:
        for store in sorted(backup.restorable_on):
            for text in _faults(world, store, backup.backup_id):
                yield f"{store}: '{backup.backup_id}' was called restorable: {text}"


def together(world: World, taken: Sequence[TakenBackup]) -> Iterator[str]:
    """Yield each two base backups that were stored on one store at the same time."""
    for one, other in combinations(taken, 2):
        for store in sorted(one.stored_on & other.stored_on):
            if _overlap(*(_span(world, store, backup.backup_id) for backup in (one, other))):
                yield f"{store}: '{one.process}' and '{other.process}' were stored at the same time"


def _faults(world: World, store: str, backup_id: str) -> Iterator[str]:
    stored = _objects(world, store, backup_id)
    if "manifest.json" not in stored:
        yield "it has no manifest"
        return
    manifest = json.loads(stored["manifest.json"])
    folders = {backup_id: stored}
    for part in _parts(manifest):
        name, home = part["name"], part.get("backup_id", backup_id)
        if home not in folders:
            folders[home] = _objects(world, store, home)
        where = f"object '{name}'" if home == backup_id else f"object '{name}' of base backup '{home}'"
        if name not in folders[home]:
            yield f"{where} is not there"
        elif hashlib.sha256(folders[home][name]).hexdigest() != part["sha256"]:
            yield f"{where} has other bytes"


def _parts(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a manifest says of each object that the base backup is restored from, also those of earlier ones."""
    for tar in manifest.get("tars", ()):
        yield from tar["objects"]
    yield from manifest.get("volumes", ())
    yield from (manifest[name] for name in ("backup_manifest", "file_index") if name in manifest)


def _span(world: World, store: str, backup_id: str) -> tuple[datetime, datetime] | None:
    data = _objects(world, store, backup_id).get("manifest.json")
    if data is None:
        return None
    manifest = json.loads(data)
    return datetime.fromisoformat(manifest["started_at"]), datetime.fromisoformat(manifest["finished_at"])


def _overlap(one: tuple[datetime, datetime] | None, other: tuple[datetime, datetime] | None) -> bool:
    return one is not None and other is not None and one[0] < other[1] and other[0] < one[1]


def _objects(world: World, store: str, backup_id: str) -> dict[str, bytes]:
    """Return the bytes of all objects of a base backup, by their names, from the server behind the proxy."""
    server, bucket = getattr(world.stage.pair, store), getattr(world.stage.buckets, store)
    found = [key for key in server.keys(bucket, f"{world.prefix}/") if f"/base/{backup_id}/" in key]
    return {key.rpartition("/")[2]: server.read(bucket, key) for key in found}
