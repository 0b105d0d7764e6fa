"""Damages copies on a store in each way that a verification must find."""

from wal_pipeline.commands.verify.results import FaultKind
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.upkeep_scene import UpkeepScene


def damage(scene: UpkeepScene, store: str, name: str, kind: str) -> None:
    """Damage a file's object in the way that ``kind`` names."""
    key = scene.key_of(store, name)
    data = scene.read(store, key)
    if kind == "deleted":
        scene.stores[store].inner.delete(key)
    elif kind == "truncated":
        scene.replace_object(store, key, data[:-7])
    elif kind == "bit turned":
        scene.replace_object(store, key, data[:100] + bytes([data[100] ^ 4]) + data[101:])
    elif kind == "replaced":
        other = scene.key_of(store, name_of(5))
        scene.replace_object(store, key, scene.read(store, other), like=other)
    elif kind == "other bytes of that length":
        scene.replace_object(store, key, bytes(len(data)))


KINDS = {
    "deleted": FaultKind.MISSING,
    "truncated": FaultKind.TRUNCATED,
    "bit turned": FaultKind.CORRUPT,
    "replaced": FaultKind.REPLACED,
    "other bytes of that length": FaultKind.CORRUPT,
}
