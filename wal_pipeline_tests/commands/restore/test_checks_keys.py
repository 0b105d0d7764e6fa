"""A restore is refused before anything is removed where nothing opens the archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyrage import x25519

from wal_pipeline.archive.format.base_backup.manifest import BackupObject, BaseBackupManifest, backup_manifest_name
from wal_pipeline.archive.records import Codec
from wal_pipeline.archive.recovery.restore_plan import PlannedFile
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.commands.restore.checks import check_identities
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.manifests import make_manifest
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore, describe_file, segment_bytes

NAMES = ("000000010000000000000002", "000000010000000000000003", "000000010000000000000004")


@dataclass(frozen=True, slots=True)
class Archive:
    """A store with a base backup's manifest object and three segments, encrypted or not."""

    store: WatchedStore
    manifest: BaseBackupManifest

    def check(self, identities: Sequence[Any]) -> bool:
        """Find out whether these identities open it."""
        plan: Any = SimpleNamespace(wal=tuple(PlannedFile(name, ("r2",)) for name in NAMES), tails=())
        return check_identities(plan, [self.manifest], [self.store], LAYOUT, identities)


def make(folder: Path, base: Sequence[str] = (), wal: Sequence[str] = ()) -> Archive:
    """Store an archive for these recipients."""
    store = WatchedStore("r2", folder)
    encoded = Encoder(Codec.ZSTD, recipients=tuple(base)).encode(b"{}")
    name = backup_manifest_name(Codec.ZSTD, encrypted=bool(base))
    body = encoded.body
    item = BackupObject(name, body.size_bytes, body.sha256, 2)
    manifest = make_manifest(encrypted=bool(base), backup_manifest=item)
    store.put_if_absent(LAYOUT.base_key(manifest.backup_id, name), body, {})
    encoder = Encoder(Codec.ZSTD, recipients=tuple(wal))
    for segment in NAMES:
        content = segment_bytes(segment)
        store_copy(
            ClusterStore(store, LAYOUT), describe_file(segment, content), encoder.encode(content), read_back=False
        )
    return Archive(store, manifest)


def test_nothing_is_encrypted(tmp_path: Path) -> None:
    """Then nothing is downloaded for the check."""
    archive = make(tmp_path / "r2")
    archive.store.calls.clear()
    assert not archive.check(())
    assert archive.store.calls == ["list", "list"]


def test_the_right_identity_opens_all(tmp_path: Path) -> None:
    """Base backup and WAL may be for different ones."""
    ours, other = x25519.Identity.generate(), x25519.Identity.generate()
    assert make(tmp_path / "r2", [str(ours.to_public())], [str(other.to_public())]).check([ours, other])


@pytest.mark.parametrize("only", ["base", "wal"])
def test_no_identity(tmp_path: Path, only: str) -> None:
    """What is encrypted is named."""
    to = [str(x25519.Identity.generate().to_public())]
    archive = make(tmp_path / "r2", **{only: to})
    with pytest.raises(RestoreError, match="is encrypted and there is no identity to open it with"):
        archive.check(())


@pytest.mark.parametrize("only", ["base", "wal"])
def test_a_wrong_identity(tmp_path: Path, only: str) -> None:
    """It is tried, not only looked for."""
    to = [str(x25519.Identity.generate().to_public())]
    archive = make(tmp_path / "r2", **{only: to})
    with pytest.raises(RestoreError, match="cannot be decrypted"):
        archive.check([x25519.Identity.generate()])
