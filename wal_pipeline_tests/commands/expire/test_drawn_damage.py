"""Whatever is damaged, partial, foreign, hidden or of the future: what the undamaged archive keeps is kept."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.records import Codec
from wal_pipeline.archive.retention.plan import ObjectKind
from wal_pipeline.commands.rebuild_catalog import rebuild
from wal_pipeline.stores.base import Body
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.broken_backups import BROKEN, break_backup
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, name_of
from wal_pipeline_tests.support.stateful_world import fast_folder
from wal_pipeline_tests.support.upkeep_scene import CLUSTER, DAY, LAYOUT, UpkeepScene, base_backup
from wal_pipeline_tests.support.versioned_folder import VersionedFolder

STORES = ("r2", "b2")
FOREIGN = ("base/notes/readme", "base/{id}/notes.txt", "wal/00000001/0000000100000000/{name}.xz", "later/format")


@dataclass(frozen=True)
class Damage:
    """One accident: to a base backup or a segment, by its number, on some stores."""

    stores: tuple[str, ...]
    number: int
    how: str


@dataclass(frozen=True)
class Night:
    """An archive of some days, what happened to it, and what runs before expiry."""

    days: int
    backup_every: int
    chain_every: int
    damages: tuple[Damage, ...]
    before: tuple[str, ...]


damages = st.builds(
    Damage,
    stores=st.sampled_from([("r2",), ("b2",), STORES]),
    number=st.integers(0, 40),
    how=st.sampled_from(
        [*BROKEN, "hide", "lose all", "half", "lose segment", "future segment", "foreign", "in flight"]
    ),
)
nights = st.builds(
    Night,
    days=st.integers(4, 30),
    backup_every=st.integers(2, 6),
    chain_every=st.integers(2, 4),
    damages=st.lists(damages, max_size=4).map(tuple),
    before=st.lists(st.sampled_from(["verify", "repair", "rebuild", "lose catalog"]), max_size=2).map(tuple),
)


@contextmanager
def archive(night: Night) -> Iterator[tuple[UpkeepScene, list[BaseBackupManifest]]]:
    """Let the days pass: base backups of which some are incremental, and a segment a day."""
    folder = fast_folder()
    scene = UpkeepScene(folder, inner=[VersionedFolder(name, folder / name) for name in STORES])
    backups: list[BaseBackupManifest] = []
    try:
        for number in range(1, night.days + 1):
            if number % night.backup_every == 1:
                parent = backups[-1] if len(backups) % night.chain_every else None
                backups.append(scene.back_up(number, scene.now, parent=parent))
            scene.archive(number, scene.now)
            scene.now += DAY
        yield scene, backups
    finally:
        scene.catalog.close()
        shutil.rmtree(folder, ignore_errors=True)


def keys_of(scene: UpkeepScene, store: str) -> set[str]:
    """Return the keys of a store's objects, hidden ones too."""
    inner = scene.stores[store].inner
    assert isinstance(inner, VersionedFolder)
    return scene.keys(store) | inner.hidden_keys()


def kept_in_truth(scene: UpkeepScene) -> dict[str, set[str]]:
    """Return the keys of what each store keeps while nothing is damaged."""
    found = {}
    for planned in scene.expirer().plan().stores:
        store = planned.plan.store
        assert planned.plan.plan is not None
        files = {one.name for one in planned.plan.plan.keep if one.kind is ObjectKind.WAL_FILE}
        ids = {one.name for one in planned.plan.plan.keep if one.kind is ObjectKind.BASE_BACKUP}
        found[store] = {key for key in scene.keys(store) if _file_of(key) in files or LAYOUT.backup_id_of(key) in ids}
    return found


def _file_of(key: str) -> str | None:
    parsed = LAYOUT.parse_wal_key(key)
    return None if parsed is None else parsed.file.name


def do_damage(scene: UpkeepScene, backups: list[BaseBackupManifest], damage: Damage) -> None:
    """Let one accident happen, where there is something for it."""
    backup_id = backups[damage.number % len(backups)].backup_id
    for store in damage.stores:
        inner = scene.stores[store].inner
        assert isinstance(inner, VersionedFolder)
        mine = sorted(key for key in scene.keys(store) if LAYOUT.backup_id_of(key) == backup_id)
        segments = sorted(key for key in scene.keys(store) if _file_of(key) is not None)
        segment = segments[damage.number % len(segments)]
        if damage.how in BROKEN and LAYOUT.base_key(backup_id, BROKEN[damage.how].part) in mine:
            break_backup(scene, backup_id, BROKEN[damage.how], [store])
        elif damage.how == "hide":
            for key in mine:
                inner.hide(key)
        elif damage.how == "lose all":
            for key in mine:
                inner.inner.delete(key)
        elif damage.how == "half":
            scene.replace_object(store, segment, scene.read(store, segment)[:50])
        elif damage.how == "lose segment":
            inner.inner.delete(segment)
        elif damage.how == "future segment":
            _make_future(scene, store, segment)
        elif damage.how == "foreign":
            for name in FOREIGN:
                key = LAYOUT.root + name.format(id=backup_id, name=name_of(1 + damage.number))
                inner.put_if_absent(key, Body.of(b"not ours"), {})
        elif damage.how == "in flight":
            started, parts = base_backup(1 + damage.number, scene.now - timedelta(hours=1))
            key = LAYOUT.base_key(started.backup_id, "base.000000.tar")
            inner.put_if_absent(key, Body.of(parts["base.000000.tar"]), {})


def _make_future(scene: UpkeepScene, store: str, key: str) -> None:
    """Put a segment in the place of another one as a newer version would: with metadata of a later format."""
    name = _file_of(key)
    assert name is not None
    scene.catalog.files.remove_copy(SYSTEM_IDENTIFIER, [name], store)
    inner = scene.stores[store].inner
    inner.delete(key)
    wanted = LAYOUT.wal_key(require_file_name(name), Codec.NONE, encrypted=False)
    inner.put_if_absent(wanted, Body.of(b"of a later format"), {"wal-format": "2"})


def prepare(scene: UpkeepScene, step: str) -> None:
    """Do what may come before expiry."""
    if step in ("verify", "repair"):
        scene.verify(repair=step == "repair")
    elif step == "rebuild":
        rebuild(list(scene.stores.values()), scene.catalog, "", CLUSTER, workers=1)
    else:
        scene.catalog.close()
        for path in Path(scene.folder).glob("catalog.sqlite*"):
            path.unlink()
        scene.__post_init__()


@settings(max_examples=25 if settings.default.derandomize else 200, deadline=None)
@given(nights)
def test_nothing_goes_that_the_undamaged_archive_keeps(night: Night) -> None:
    """Nor anything foreign or hidden, nor the WAL of what remains of any base backup; twice in a row."""
    with archive(night) as (scene, backups):
        truth = kept_in_truth(scene)
        for damage in night.damages:
            do_damage(scene, backups, damage)
        for step in night.before:
            prepare(scene, step)
        left = {store: keys_of(scene, store) for store in STORES}
        foreign = {store: {key for key in left[store] if _is_foreign(key)} for store in STORES}
        for _ in range(2):
            scene.expirer().expire()
            for store in STORES:
                gone = (truth[store] & left[store]) - keys_of(scene, store)
                assert not gone, f"{store} lost {sorted(gone)}"
                assert foreign[store] <= keys_of(scene, store)


def _is_foreign(key: str) -> bool:
    return key.endswith((".xz", ".txt", "/readme", "later/format"))
