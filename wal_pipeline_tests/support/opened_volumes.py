"""Opens base backups of the method ``local`` with standard tools alone, as a person without this program does."""

import subprocess
from pathlib import Path

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, parse_index
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.base_backup_scene import TOOLS, read

# The loop of the manifest's description (archive/format/base_backup/manifest.py).
_JOIN = """
find . -name '*.wal-pipeline-part.000000000000000' | while read -r first; do
  file=${first%.wal-pipeline-part.*}
  cat "$file".wal-pipeline-part.* > "$file" && rm "$file".wal-pipeline-part.*
done
"""


def open_volumes(place: ClusterStore, manifest: BaseBackupManifest, folder: Path) -> Path:
    """Fetch all volumes with plain reads, and open them with standard tools; return ``folder``, which is made."""
    folder.mkdir(mode=0o700, parents=True)
    for volume in manifest.volumes:
        stored = read(place.store, place.layout.base_key(volume.backup_id, volume.item.name))
        command = f"{TOOLS[manifest.codec]} | tar -x -C {folder}"
        subprocess.run(["bash", "-o", "pipefail", "-c", command], input=stored, check=True, timeout=120)
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", _JOIN], cwd=folder, check=True, timeout=120)
    return folder


def read_index(place: ClusterStore, manifest: BaseBackupManifest) -> FileIndex:
    """The index of a base backup that is not encrypted."""
    assert manifest.file_index is not None
    content = bytearray()
    open_object(place, manifest, manifest.file_index, identities=[], sink=content.extend)
    return parse_index(bytes(content).splitlines(), manifest)
