"""Base backups that the helper makes are whole, and open with standard tools."""

import os
import subprocess
from pathlib import Path

from wal_pipeline.archive.format.base_backup.file_index import parse_index
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest
from wal_pipeline.archive.format.base_backup.parts import split_part_name
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.commands.inventory.wholeness import find_fault
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.base_backup_scene import folder_store, read
from wal_pipeline_tests.support.local_base_backup import FolderBackup, MadeBackup, crc32c

LARGE = bytes(range(256)) * 10000


def _data(folder: Path) -> Path:
    for name, content in {"base/5/1": LARGE, "base/5/2": b"2" * 9, "base/1/3": b"", "global/pg_control": b"c"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "pg_twophase").mkdir()
    (folder / "PG_VERSION").write_bytes(b"18\n")
    return folder


def _opened(place: ClusterStore, made: MadeBackup, folder: Path) -> dict[str, bytes]:
    """Open all volumes with standard tools, and join the parts."""
    for volume in made.manifest.volumes:
        data = read(place.store, place.layout.base_key(volume.backup_id, volume.item.name))
        subprocess.run(["bash", "-c", f"zstd -dc | tar -x -C {folder}"], input=data, check=True, timeout=60)
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            name = (split_part_name(name) or (name, 0))[0]
            found[name] = found.get(name, b"") + path.read_bytes()
    return found


def test_a_folder_comes_back_and_its_index_is_right(tmp_path: Path) -> None:
    """The manifest and the index are read as a restore reads them."""
    data, opened = _data(tmp_path / "data"), tmp_path / "opened"
    opened.mkdir()
    place = ClusterStore(folder_store("r2", tmp_path), Layout("", "main", 7))
    made = FolderBackup(place, data).make()
    stored = read(place.store, place.layout.manifest_key(made.manifest.backup_id))
    assert parse_manifest(stored, backup_id=made.manifest.backup_id) == made.manifest
    keys = {item.key.rpartition("/")[2]: item for item in place.store.list(place.layout.base_root)}
    assert find_fault(made.manifest, keys) is None
    found = _opened(place, made, opened)
    assert found["base/5/1"] == LARGE
    assert (opened / "pg_twophase").is_dir()
    assert {path: crc32c(content) for path, content in found.items()} == {
        path: file.crc32c for path, file in made.index.files.items() if not file.is_folder
    }


def test_an_incremental_one_refers_to_what_is_unchanged(tmp_path: Path) -> None:
    """Only the changed file and the last volume are new."""
    data, opened = _data(tmp_path / "data"), tmp_path / "opened"
    opened.mkdir()
    store: LocalFolderStore = folder_store("r2", tmp_path)
    place = ClusterStore(store, Layout("", "main", 7))
    parent = FolderBackup(place, data).make()
    (data / "base/5/2").write_bytes(b"changed")
    os.utime(data / "base/5/2", ns=(1, 1))
    later = parent.manifest.started_at.replace(hour=20)
    made = FolderBackup(place, data, parent=parent, started_at=later).make()
    assert [volume.backup_id for volume in made.manifest.volumes[:2]] == [made.manifest.backup_id] * 2
    assert made.manifest.chain == (parent.manifest.backup_id,)
    assert {volume.backup_id for volume in made.manifest.referred} == {parent.manifest.backup_id}
    lines = b"".join(
        subprocess.run(
            ["zstd", "-dc"],
            input=read(store, place.layout.base_key(made.manifest.backup_id, "file_index.zst")),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.splitlines(keepends=True)
    )
    assert parse_index(lines.splitlines(), made.manifest) == made.index
    assert made.index.files["base/5/1"].parts[0].volume >= 2
    assert made.index.files["base/5/2"].size_bytes == 7
