"""Encrypted base backups that were read file by file: taken, built on, gone on with, restored, and mended in place."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.records import BackupKind, Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.restore.perform import RestoreCommand, perform_restore
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wiring.backup import base_backup_taker
from wal_pipeline_tests.support.base_backup_scene import read
from wal_pipeline_tests.support.killed_restore import prepared
from wal_pipeline_tests.support.restore_history import History, restored
from wal_pipeline_tests.support.stateful_references import ReferenceWorld

ACCOUNTS = "pgbench_accounts"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A history whose base backups are encrypted, a full one and an incremental one on it, by id."""

    history: History
    full_id: str
    later_id: str


@pytest.fixture(scope="module")
def sealed(postgres18: PostgresInstall, s3_pair: S3Pair) -> Iterator[Sealed]:
    """Two base backups with commits after each."""
    with History.begin(postgres18, s3_pair) as history:
        identity, key = pyrage.x25519.Identity.generate(), history.folder / "identity"
        key.write_text(f"{identity}\n")
        key.chmod(0o644)
        history.folder.chmod(0o755)
        history.environment["WAL_PIPELINE_AGE_RECIPIENTS"] = str(identity.to_public())
        history.environment["WAL_PIPELINE_AGE_IDENTITY_FILE"] = str(key)
        full_id = history.back_up_locally()
        history.mark("between")
        later = base_backup_taker(history.pipeline, archive=history.archive).take(incremental=True)
        assert later.result.manifest.encrypted
        history.mark("after")
        yield Sealed(history, full_id, later.result.manifest.backup_id)


@pytest.mark.integration
@pytest.mark.newest_version
def test_encrypted_base_backups_come_back(sealed: Sealed) -> None:
    """Both of them, up to the last commit."""
    end = sealed.history.end()
    for backup_id in (sealed.full_id, sealed.later_id):
        with restored(sealed.history, "--base-backup", backup_id, "--verify-with=postgres") as found:
            assert found.moment() == (end.marks, end.transactions)
            assert found.balances_agree()


@pytest.mark.integration
@pytest.mark.newest_version
def test_only_what_differs_is_fetched_and_opened(sealed: Sealed) -> None:
    """Of a data directory in which one byte of one table was turned."""
    history = sealed.history
    history.end()
    environment = {**history.environment, "PGBINDIR": str(history.install.bin_folder)}
    pgdata = owned_folder("delta") / "pgdata"
    whole = perform_restore(prepared(environment, pgdata, base_backup=sealed.later_id), RestoreCommand(("true",)))
    path = pgdata / history.cluster.value(f"SELECT pg_relation_filepath('{ACCOUNTS}')")
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    again = perform_restore(
        prepared(environment, pgdata, base_backup=sealed.later_id, delta=True), RestoreCommand(("true",))
    )
    assert path.read_bytes() == right
    assert again.kept_bytes > 0
    assert again.downloaded_bytes < whole.downloaded_bytes


def test_an_encrypted_base_backup_that_was_cut_is_gone_on_with(tmp_path: Path) -> None:
    """Its volumes are copied, and come back; a third one refers to them. Without the key nothing is gone on with."""
    identity = pyrage.x25519.Identity.generate()
    encoder = StreamEncoder(Codec.ZSTD, recipients=[str(identity.to_public())])
    world = ReferenceWorld(tmp_path, encoder=encoder, identities=(identity,))
    world.change(range(16), factor=3)  # each is a volume
    world.pass_time(1)
    assert world.back_up(incremental=False, cut=True) is None
    left = sorted(world.keys("r2"))
    assert any("file_index.part." in key for key in left)
    cut = {hashlib.sha256(read(world.scene.stores["r2"], key)).hexdigest() for key in left if "/files." in key}
    first = world.back_up(incremental=False)
    assert first is not None
    assert first.encrypted
    copied = {volume.item.sha256 for volume in first.volumes} & cut  # no two encryptions have the same bytes
    assert len(copied) >= 8
    world.change([3])
    world.pass_time(1)
    second = world.back_up(incremental=True)
    assert second is not None
    assert (second.kind, second.chain) == (BackupKind.INCREMENTAL, (first.backup_id,))
    assert world.check_restores() == 4
    world.identities = ()
    with pytest.raises(WalPipelineError, match="encrypted"):
        world.check_restores()
    world.scene.catalog.close()
