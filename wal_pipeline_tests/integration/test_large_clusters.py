"""Tests that large clusters come back whole: many tables, a table of several files, a tablespace, by both methods."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pyrage
import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History, restored

pytestmark = [pytest.mark.integration, pytest.mark.large, pytest.mark.timeout(1200)]

TABLES = 20_000
_TABLES_AT_ONCE = 1000
_HUGE_ROWS = 3_200_000  # of a little less than 1 kB: three files of 1 GiB
_ROOM_BYTES = 24 << 30
_MANY = """
DO $$ BEGIN
  FOR n IN {first}..{last} LOOP EXECUTE format('CREATE TABLE many.t%s AS SELECT %s AS n', n, n); END LOOP;
END $$
"""
_HUGE = f"CREATE TABLE huge AS SELECT i, repeat(md5(i::text), 28) AS label FROM generate_series(1, {_HUGE_ROWS}) i"  # noqa: S608 - a number
_DIGESTS = """
SELECT count(*), sum(hashtextextended(label, i)) FROM huge;
SELECT count(*), sum(hashint4(n)) FROM apart;
SELECT count(*) FROM pg_class WHERE relnamespace = 'many'::regnamespace;
SELECT n FROM many.t1 UNION SELECT n FROM many.t{last} ORDER BY n
"""


@dataclass(slots=True)
class Large:
    """A large cluster, with the digests of what is in it."""

    history: History
    digests: str


@pytest.fixture(scope="module")
def large(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Large]:
    """A cluster of 3 GB whose archiving begins when it is filled. It lies on a disk: memory would not hold it twice."""
    with pytest.MonkeyPatch.context() as patch:
        folder = "/var/tmp"  # noqa: S108 - a disk
        if shutil.disk_usage(folder).free < _ROOM_BYTES:
            pytest.skip(f"'{folder}' has no {_ROOM_BYTES >> 30} GiB free")
        patch.setenv("TESTBED_FOLDER", folder)
        # Without autovacuum, which makes forks of its own accord between two base backups.
        settings = {
            "max_wal_size": "2GB",
            "fsync": "off",
            "max_locks_per_transaction": "2000",
            "autovacuum": "off",
        }
        with History.begin(postgres_version, s3_pair, wal_segment_size_mb=16, settings=settings) as history:
            cluster = history.cluster
            cluster.psql("ALTER SYSTEM SET archive_command = 'true'")
            cluster.psql("SELECT pg_reload_conf(); CREATE SCHEMA many; CREATE EXTENSION IF NOT EXISTS amcheck")
            for first in range(1, TABLES, _TABLES_AT_ONCE):
                cluster.psql(_MANY.format(first=first, last=first + _TABLES_AT_ONCE - 1))
            cluster.psql(_HUGE)
            cluster.psql("CREATE INDEX ON huge (i)")
            space = cluster.make_tablespace("apart")
            cluster.psql("CREATE TABLE apart TABLESPACE apart AS SELECT generate_series(1, 500000) AS n")
            cluster.psql("VACUUM huge, apart")
            cluster.psql("ALTER SYSTEM RESET archive_command")
            cluster.psql("SELECT pg_reload_conf(); CHECKPOINT; SELECT pg_switch_wal()")
            history.environment["PGDATA"] = str(cluster.pgdata)
            try:
                yield Large(history, cluster.psql(_DIGESTS.format(last=TABLES)))
            finally:
                shutil.rmtree(space, ignore_errors=True)


@pytest.mark.each_version
@pytest.mark.parametrize("method", ["local", "remote"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "age"])
def test_a_large_cluster_comes_back_whole(large: Large, method: str, encrypted: bool) -> None:
    """Every row is there, amcheck finds no fault in any table and index, and all page checksums are right."""
    history = large.history
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(history.environment, "WAL_PIPELINE_BACKUP_METHOD", method)
        if encrypted:
            identity, key = pyrage.x25519.Identity.generate(), history.folder / "identity"
            key.write_text(f"{identity}\n")
            key.chmod(0o644)
            history.folder.chmod(0o755)
            patch.setitem(history.environment, "WAL_PIPELINE_AGE_RECIPIENTS", str(identity.to_public()))
            patch.setitem(history.environment, "WAL_PIPELINE_AGE_IDENTITY_FILE", str(key))
        backup_id = history.back_up()
        history.cluster.pgbench(transactions=50)
        history.end()
        words = (
            "--no-archiving",
            "--store=r2",
            f"--base-backup={backup_id}",
            f"--tablespace-map-all={history.folder / 'spaces'}",
        )
        try:
            with restored(history, *words) as found:
                assert found.cluster.psql(_DIGESTS.format(last=TABLES)) == large.digests
                assert found.balances_agree()
                found.cluster.run("pg_amcheck", "--all", "--no-dependent-toast", "--jobs=2", timeout_seconds=600)
                found.cluster.run("pg_ctl", "stop", "--mode=fast", "--wait", "--pgdata", str(found.cluster.pgdata))
                require_checksums(history, str(found.cluster.pgdata))
        finally:
            shutil.rmtree(history.folder / "spaces", ignore_errors=True)


def require_checksums(history: History, pgdata: str) -> None:
    """Refuse a stopped cluster with a page whose checksum is wrong. Raises: ServerError."""
    if "page checksum version:           0" not in history.cluster.run("pg_controldata", pgdata):
        history.cluster.run("pg_checksums", "--check", "--pgdata", pgdata, timeout_seconds=600)


def test_the_methods_hold_the_same_files(large: Large) -> None:
    """What ``local`` lists is what pg_basebackup lists: no file more, none less."""
    listed = {}
    for method in ("local", "remote"):
        folder = large.history.folder / f"listed-{method}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(large.history.environment, "WAL_PIPELINE_BACKUP_METHOD", method)
            backup_id = large.history.back_up()
        words = ("--no-archiving", f"--base-backup={backup_id}", f"--tablespace-map-all={folder}")
        with restored(large.history, *words) as found:
            manifest = json.loads((found.cluster.pgdata / "backup_manifest").read_bytes())
        shutil.rmtree(folder, ignore_errors=True)
        listed[method] = {
            one.get("Path") or os.fsdecode(bytes.fromhex(one["Encoded-Path"])) for one in manifest["Files"]
        }
    assert listed["local"] == listed["remote"]
