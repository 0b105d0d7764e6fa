"""Ways to break a base backup on a store, and how each caller names it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.commands.verify.results import FaultKind
from wal_pipeline.stores.base import Body
from wal_pipeline_tests.support.upkeep_scene import LAYOUT, UpkeepScene

VOLUME = "base.000000.tar"
LATER = b'{"format": "wal-pipeline base backup", "version": 3}'


@dataclass(frozen=True)
class Broken:
    """A way to break the base backup ``{id}`` on r2, and how each caller names it."""

    part: str
    data: Callable[[bytes], bytes] | None
    kind: BackupFaultKind
    reason: str
    verified: FaultKind
    recorded: CopyStatus | None
    objects: tuple[str, ...] = ()


BROKEN = {
    "no manifest": Broken(
        "manifest.json",
        None,
        BackupFaultKind.UNFINISHED,
        "base backup '{id}' has no manifest",
        FaultKind.MISSING,
        None,
    ),
    "damaged manifest": Broken(
        "manifest.json",
        lambda good: good.replace(b'"nightly"', b'"nightlY"'),
        BackupFaultKind.UNREADABLE,
        "manifest 'r2: {root}base/{id}/manifest.json' cannot be used: it is damaged: it has SHA-256 ",
        FaultKind.UNREADABLE,
        None,
    ),
    "manifest of a later format": Broken(
        "manifest.json",
        lambda _good: LATER,
        BackupFaultKind.UNREADABLE,
        "manifest 'r2: {root}base/{id}/manifest.json' cannot be used: "
        "expected the format ('wal-pipeline base backup', 2), found ('wal-pipeline base backup', 3)",
        FaultKind.UNREADABLE,
        None,
    ),
    "missing volume": Broken(
        VOLUME,
        None,
        BackupFaultKind.INCOMPLETE,
        "base backup '{id}': object 'base.000000.tar' is not there",
        FaultKind.MISSING,
        CopyStatus.MISSING,
        (VOLUME,),
    ),
    "volume of another size": Broken(
        VOLUME,
        lambda good: good[:-1],
        BackupFaultKind.WRONG_SIZE,
        "base backup '{id}': object 'base.000000.tar' has 51 bytes, expected 52",
        FaultKind.TRUNCATED,
        CopyStatus.DAMAGED,
        (VOLUME,),
    ),
}


def break_backup(scene: UpkeepScene, backup_id: str, how: Broken, stores: Sequence[str]) -> dict[str, bytes]:
    """Break a base backup on some stores, and return what was there."""
    key = LAYOUT.base_key(backup_id, how.part)
    there = {store: scene.read(store, key) for store in stores}
    for store in stores:
        if how.data is None:
            scene.stores[store].inner.delete(key)
        else:
            scene.replace_object(store, key, how.data(there[store]))
    return there


def put_back(scene: UpkeepScene, backup_id: str, part: str, there: dict[str, bytes]) -> None:
    """Put a base backup's object back as it was."""
    key = LAYOUT.base_key(backup_id, part)
    for store, data in there.items():
        scene.stores[store].inner.delete(key)
        scene.stores[store].inner.put_if_absent(key, Body.of(data), {})
