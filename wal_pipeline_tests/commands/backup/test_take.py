"""Base backups of real clusters on real S3 servers: opened with standard tools, verified by PostgreSQL itself."""

import io
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyrage
import pytest

from testbed.fault_proxy import FaultProxy
from testbed.faults import StoreFlipped
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest
from wal_pipeline.archive.records import BackupKind, Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.commands.backup.parent import choose_parent, fetch_parent
from wal_pipeline.commands.refill.base_backups import refill_base_backup
from wal_pipeline.errors import BaseBackupError, DamagedCopyError, StoreUnavailableError
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.stores.base import Body, PutOutcome, Store
from wal_pipeline_tests.support.archive_scene import WatchedStore
from wal_pipeline_tests.support.base_backup_scene import (
    SMALL_PARTS,
    Scene,
    archiving_cluster,
    folder_store,
    read,
    s3_store,
    verify_backup,
)
from wal_pipeline_tests.support.slow_server import slow_function

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running cluster of each version that archives, with pgbench's tables."""
    with archiving_cluster(postgres_version) as made:
        made.pgbench_init(scale=2)
        yield made


@pytest.fixture(scope="module")
def cluster18(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running PostgreSQL 18 that archives and summarizes its WAL."""
    with archiving_cluster(postgres18, summarize_wal="on") as made:
        made.pgbench_init(scale=2)
        yield made


@pytest.fixture
def local(cluster18: PostgresCluster, tmp_path: Path) -> Scene:
    """PostgreSQL 18 and two local folders."""
    return Scene(cluster18, [folder_store("r2", tmp_path), folder_store("b2", tmp_path)], tmp_path / "scratch")


def test_the_same_bytes_lie_on_both_stores_and_open_with_standard_tools(
    cluster: PostgresCluster, s3_pair: S3Pair, s3_buckets: S3Buckets, tmp_path: Path
) -> None:
    """Every object is the same on r2 and b2, zstd and tar make a folder of it, and pg_verifybackup accepts that."""
    scene = Scene(cluster, [s3_store(s3_pair, s3_buckets, name) for name in ("r2", "b2")], tmp_path / "scratch")
    before = cluster.value("SELECT pg_current_wal_insert_lsn()")
    result = scene.take(label="nightly")
    manifest = result.manifest
    r2, b2 = scene.stores
    assert (result.stored_on, result.failures) == (("r2", "b2"), {})
    assert scene.keys(r2) == scene.keys(b2)
    assert [read(r2, key) for key in scene.keys(r2)] == [read(b2, key) for key in scene.keys(b2)]
    assert len(manifest.tar("base").objects) > 1
    for store in scene.stores:
        scene.unpack(store, manifest, tmp_path / store.name)
        assert verify_backup(cluster.install, tmp_path / store.name) == "backup successfully verified"
    stored = read(r2, scene.layout.manifest_key(manifest.backup_id))
    assert parse_manifest(stored, backup_id=manifest.backup_id) == manifest
    record = result.record
    assert (record.kind, record.label, record.timeline) == (BackupKind.FULL, "nightly", 1)
    assert record.server_version // 10000 == cluster.install.version
    assert cluster.value(f"SELECT '{before}' <= '{record.start_lsn}'::pg_lsn") == "t"
    assert cluster.value(f"SELECT '{record.stop_lsn}' <= pg_current_wal_insert_lsn()") == "t"
    assert record.started_at < record.finished_at
    archived = {path.name for path in (cluster.folder / "archive").iterdir()}
    assert {name.name for name in manifest.required_segments} <= archived  # PostgreSQL itself waited for them


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.LZ4, Codec.NONE])
def test_every_codec_opens_with_its_standard_tool(local: Scene, codec: Codec, tmp_path: Path) -> None:
    """gunzip, lz4 and cat make the same folder."""
    manifest = local.take(StreamEncoder(codec)).manifest
    local.unpack(local.stores[1], manifest, tmp_path / "out")
    assert verify_backup(local.cluster.install, tmp_path / "out") == "backup successfully verified"


def test_an_encrypted_base_backup_opens_with_the_identity_alone(local: Scene, tmp_path: Path) -> None:
    """No byte of a table's content is in the stored objects, and the identity brings the tar back."""
    identity = pyrage.x25519.Identity.generate()
    manifest = local.take(StreamEncoder(Codec.NONE, recipients=[str(identity.to_public())])).manifest
    objects = manifest.tar("base").objects
    key = local.layout.base_key(manifest.backup_id, objects[0].name)
    assert b"backup_label" not in read(local.stores[0], key)
    opened = bytearray()
    for item in objects:
        open_object(local.place(local.stores[0]), manifest, item, identities=[identity], sink=opened.extend)
    assert opened.startswith(b"backup_label")
    assert len(opened) == manifest.tar("base").size_bytes


def test_a_store_that_goes_down_midway_is_left_out_and_refilled_later(
    cluster18: PostgresCluster, s3_pair: S3Pair, s3_buckets: S3Buckets, tmp_path: Path
) -> None:
    """r2 gets its copy, the result names b2 and why; the refill makes b2's the same bytes."""
    with FaultProxy(s3_pair.b2) as proxy:
        r2 = s3_store(s3_pair, s3_buckets, "r2")
        b2 = s3_store(s3_pair, s3_buckets, "b2", endpoint_url=proxy.endpoint_url)
        scene = Scene(cluster18, [r2, b2], tmp_path / "scratch")

        def cut(_progress: object) -> None:
            if "PUT" in proxy.counts:
                proxy.down()

        result = scene.take(StreamEncoder(Codec.NONE), on_progress=cut)
        backup_id = result.manifest.backup_id
        assert result.stored_on == ("r2",)
        assert list(result.failures) == ["b2"]
        assert result.failures["b2"].startswith("b2: ")
        proxy.up()
        assert b2.head(scene.layout.manifest_key(backup_id)) is None
        refilled = refill_base_backup(backup_id, scene.place(r2), scene.place(b2), limits=SMALL_PARTS)
        assert refilled.copied > 0
        assert [read(r2, key) for key in scene.keys(r2)] == [read(b2, key) for key in scene.keys(b2)]
        again = refill_base_backup(backup_id, scene.place(r2), scene.place(b2), limits=SMALL_PARTS)
        assert (again.copied, again.copied_bytes) == (0, 0)


def test_bytes_that_a_store_changed_are_found_by_reading_back(
    cluster18: PostgresCluster, s3_pair: S3Pair, s3_buckets: S3Buckets, tmp_path: Path
) -> None:
    """A store that answers that all is well but holds other bytes gets no manifest, so it has no copy."""
    with FaultProxy(s3_pair.r2) as proxy:
        proxy.add(StoreFlipped(), method="PUT", key="base.000000")
        r2 = s3_store(s3_pair, s3_buckets, "r2", endpoint_url=proxy.endpoint_url)
        b2 = s3_store(s3_pair, s3_buckets, "b2")
        scene = Scene(cluster18, [r2, b2], tmp_path / "scratch")
        result = scene.take(StreamEncoder(Codec.NONE))
        assert result.stored_on == ("b2",)
        assert "base.000000.tar" in result.failures["r2"]
        assert r2.head(scene.layout.manifest_key(result.manifest.backup_id)) is None


def test_where_every_store_fails_nothing_is_left(local: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names each store's reason, and no object, upload or file stays."""
    for store in local.stores:
        put = store.put_if_absent

        def fail(
            key: str,
            body: Body,
            metadata: Mapping[str, str],
            name: str = store.name,
            put: Callable[[str, Body, Mapping[str, str]], PutOutcome] = put,
        ) -> PutOutcome:
            if "/lease/" in key:
                return put(key, body, metadata)
            raise StoreUnavailableError(name, "the disk is gone")

        monkeypatch.setattr(store, "put_if_absent", fail)
    with pytest.raises(BaseBackupError) as caught:
        local.take(StreamEncoder(Codec.NONE))
    assert caught.value.message == ("no store took the base backup: r2: the disk is gone; b2: the disk is gone")
    for store in local.stores:
        assert local.keys(store) == []
        assert list(store.uploads("")) == []
    assert list(local.scratch_folder.iterdir()) == []


def test_a_failing_pg_basebackup_leaves_nothing_and_is_quoted(local: Scene) -> None:
    """The server ends the connection midway: its words are in the error, or those that say how the connection broke."""
    sender = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"

    def end(progress: object) -> None:
        local.cluster.psql(sender)

    with pytest.raises(
        BaseBackupError,
        match=r"^pg_basebackup ended with status 1: (COPY stream ended before|could not read COPY data: )",
    ):
        local.take(StreamEncoder(Codec.NONE), on_progress=end, max_rate_kib=4096)
    for store in local.stores:
        assert local.keys(store) == []
        assert list(store.uploads("")) == []


def test_a_refill_does_not_spread_a_damaged_copy(local: Scene, tmp_path: Path) -> None:
    """The source's changed byte is found before the destination has an object of it."""
    result = local.take()
    source, destination = local.stores[0], folder_store("new", tmp_path)
    key = local.layout.base_key(result.manifest.backup_id, result.manifest.objects[0].name)
    data = bytearray(read(source, key))
    data[-1] ^= 1
    source.delete(key)
    source.put_if_absent(key, Body.of(bytes(data)), {})
    with pytest.raises(
        DamagedCopyError, match=f"r2: object '{key}' has SHA-256 {Body.of(bytes(data)).sha256}, expected"
    ):
        refill_base_backup(result.manifest.backup_id, local.place(source), local.place(destination), limits=SMALL_PARTS)
    assert local.keys(destination) == []
    assert list(destination.uploads("")) == []


def test_a_refill_reads_twice_before_it_replaces(local: Scene, tmp_path: Path) -> None:
    """One bad read of the destination's object costs it nothing; two, and it is copied again."""
    result = local.take()
    source, destination = local.stores[0], BadReader(folder_store("new", tmp_path))
    backup_id = result.manifest.backup_id
    key = local.layout.base_key(backup_id, result.manifest.objects[0].name)
    refill_base_backup(backup_id, local.place(source), local.place(destination), limits=SMALL_PARTS)
    for bad_reads, copied in ((1, 0), (2, 1)):
        destination.bad_reads[key] = bad_reads
        refilled = refill_base_backup(backup_id, local.place(source), local.place(destination), limits=SMALL_PARTS)
        assert (refilled.copied, destination.bad_reads[key]) == (copied, 0)


class BadReader(WatchedStore):
    """A store whose reads of a key go wrong so many times."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.bad_reads: Counter[str] = Counter()

    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        if not self.bad_reads[key]:
            return super().open(key, start=start)
        self.bad_reads[key] -= 1
        return io.BytesIO(b"not what was stored")


def test_tablespaces_are_staged_and_each_has_its_tar(postgres_version: PostgresInstall, tmp_path: Path) -> None:
    """One tar per tablespace with the manifest's oid and location; the staging folder is empty afterwards."""
    with archiving_cluster(postgres_version) as cluster:
        location = cluster.make_tablespace("fast_disk")
        cluster.psql("CREATE TABLE t TABLESPACE fast_disk AS SELECT generate_series(1, 1000) AS i")
        scene = Scene(cluster, [folder_store("r2", tmp_path)], tmp_path / "scratch")
        assert scene.take().manifest.staged  # without a staging folder, one beside the scratch files does
        assert [path.name for path in (scene.scratch_folder / "staging").iterdir()] == ["lock"]
        staging = owned_folder("staging")
        manifest = scene.take(staging_folder=staging).manifest
        [space] = manifest.tablespaces
        assert (space.location, manifest.staged) == (str(location), True)
        assert [tar.name for tar in manifest.tars] == [str(space.oid), "base"]
        assert [path.name for path in staging.iterdir()] == ["lock"]
        base, extra = tmp_path / "base", tmp_path / "extra"
        scene.unpack(scene.stores[0], manifest, base)
        scene.unpack(scene.stores[0], manifest, extra, space.tar)
        link = base / "pg_tblspc" / str(space.oid)
        link.unlink(missing_ok=True)
        link.symlink_to(extra)
        with (base / "backup_manifest").open("wb") as file:
            open_object(
                scene.place(scene.stores[0]),
                manifest,
                manifest.backup_manifest,
                identities=[],
                sink=file.write,
            )
        assert verify_backup(cluster.install, base) == "backup successfully verified"


def test_a_size_that_takes_too_long_ends_no_base_backup(
    postgres_version: PostgresInstall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sizes of the tablespaces are an estimate: after 30 s there was no base backup, and "cannot connect"."""
    short = {**(BackupServer.__init__.__kwdefaults__ or {}), "statement_timeout_seconds": 3}
    monkeypatch.setattr(BackupServer.__init__, "__kwdefaults__", short)
    with archiving_cluster(postgres_version) as cluster:
        cluster.make_tablespace("fast_disk")
        scene = Scene(cluster, [folder_store("r2", tmp_path)], tmp_path / "scratch")
        with slow_function(cluster, "pg_tablespace_size", "oid", "bigint", 15):
            manifest = scene.take(staging_folder=owned_folder("staging")).manifest
    assert len(manifest.tablespaces) == 1
    assert "the size of the cluster is not known: PostgreSQL did not finish within 3 s" in caplog.text


def test_an_incremental_base_backup_combines_with_its_chain(local: Scene, tmp_path: Path) -> None:
    """Two steps on a full one: pg_combinebackup takes them in the manifest's order, pg_verifybackup accepts it."""
    full = local.take()
    chain = [full]
    for number in range(2):
        local.cluster.psql(f"CREATE TABLE step_{number} AS SELECT generate_series(1, 5000) AS i")
        folder = tmp_path / f"parent-{number}"
        folder.mkdir()
        parent_id = choose_parent(local.places)
        parent = fetch_parent(local.places, parent_id, identities=[], folder=folder)
        chain.append(local.take(parent=parent))
    last = chain[-1].manifest
    assert (last.kind, last.chain) == (BackupKind.INCREMENTAL, tuple(item.manifest.backup_id for item in chain[:-1]))
    assert last.size_bytes < full.manifest.size_bytes // 2
    folders = []
    for number, item in enumerate(chain):
        folders.append(tmp_path / f"step-{number}")
        local.unpack(local.stores[1], item.manifest, folders[-1])
    output = owned_folder("combined") / "data"
    install = local.cluster.install
    _combine(install, folders, output)
    assert verify_backup(install, output) == "backup successfully verified"


def test_an_incremental_base_backup_needs_a_parent_on_all_stores(local: Scene, tmp_path: Path) -> None:
    """A parent that one store lacks would make a chain that cannot be restored from there."""
    result = local.take()
    local.stores[1].delete(local.layout.manifest_key(result.manifest.backup_id))
    with pytest.raises(BaseBackupError) as caught:
        choose_parent(local.places)
    assert caught.value.message == (
        "no base backup is whole on all stores with its whole chain, so none can be the parent of an incremental one"
    )


def test_without_wal_summaries_no_incremental_base_backup_begins(cluster: PostgresCluster, tmp_path: Path) -> None:
    """The error says what is missing: the setting on 18, the version on 15."""
    scene = Scene(cluster, [folder_store("r2", tmp_path)], tmp_path / "scratch")
    scene.take()
    folder = tmp_path / "parent"
    folder.mkdir()
    backup_id = choose_parent(scene.places)
    parent = fetch_parent(scene.places, backup_id, identities=[], folder=folder)
    expected = {
        18: "the server keeps no WAL summaries: 'summarize_wal' is 'off', expected 'on'",
        15: "PostgreSQL 15 has no incremental base backups, expected 17 or newer",
    }
    with pytest.raises(BaseBackupError) as caught:
        scene.take(parent=parent)
    assert caught.value.message == expected[cluster.install.version]


def test_a_tablespace_inside_the_data_directory_is_refused(local: Scene) -> None:
    """It would be found out at the end otherwise, when the manifest is checked."""
    local.cluster.psql("SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE inside LOCATION ''")
    try:
        with pytest.raises(BaseBackupError, match=r"tablespace 'pg_tblspc/[0-9]+' lies inside the data directory"):
            local.take()
    finally:
        local.cluster.psql("DROP TABLESPACE inside")


def test_the_connection_may_come_from_libpqs_own_variables(local: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty connection string, pg_basebackup finds the server as psycopg does."""
    for name, value in local.cluster.pg_environment.items():
        monkeypatch.setenv(name, value)
    assert local.take(conninfo="").stored_on == ("r2", "b2")


def test_another_clusters_connection_is_refused(local: Scene) -> None:
    """The archive's system identifier must be the server's."""
    local.layout = replace(local.layout, system_identifier=5)
    with pytest.raises(BaseBackupError) as caught:
        local.take()
    found = local.cluster.system_identifier
    assert caught.value.message == f"the server has system identifier {found}, expected 5"


def test_progress_ends_at_the_tars_size(local: Scene) -> None:
    """The bytes read never shrink, the server's estimate comes, and the end is the tar's size."""
    seen = []
    result = local.take(on_progress=seen.append, max_rate_kib=32768)
    counts = [item.read_bytes for item in seen]
    assert counts == sorted(counts)
    assert counts[-1] == result.manifest.size_bytes
    assert any(item.total_bytes for item in seen)


def _combine(install: PostgresInstall, folders: list[Path], output: Path) -> None:
    program = str(install.program("pg_combinebackup"))
    subprocess.run([program, *map(str, folders), "--output", str(output)], check=True, capture_output=True, timeout=120)
