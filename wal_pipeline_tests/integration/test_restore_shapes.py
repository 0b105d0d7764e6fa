"""Tests restores across a timeline switch, with tablespaces, incremental base backups and 64 MB segments."""

import shutil
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History, restored, run_restore

pytestmark = pytest.mark.integration


def test_a_timeline_switch_between_base_backup_and_target(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """The restored server replays through the switch, to a moment on either side of it, and opens on timeline 3."""
    with History.begin(postgres18, s3_pair, settings={"restore_command": "false"}) as history:
        history.back_up()
        history.mark("before")
        before = history.moment("before")
        history.cluster.stop()
        (history.cluster.pgdata / "standby.signal").touch()
        history.cluster.start()
        history.cluster.promote()
        history.mark("after")
        end = history.end()
        history.lose()
        with restored(history, f"--to-time={before.at}") as found:
            assert found.moment() == (before.marks, before.transactions)
        with restored(history, "--store=b2") as found:
            assert found.moment() == (end.marks, end.transactions)
            assert found.answer["recovery"]["timeline"] == 3
            assert found.balances_agree()


def test_tablespaces_go_where_they_are_told(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """A tablespace is restored into a new folder, an incremental base backup of it too."""
    with History.begin(postgres18, s3_pair, settings={"summarize_wal": "on"}) as history:
        old = history.cluster.make_tablespace("fast")
        history.cluster.psql("CREATE TABLE far TABLESPACE fast AS SELECT generate_series(1, 1000) AS i")
        history.back_up()
        history.cluster.psql("INSERT INTO far SELECT generate_series(1001, 2000)")
        history.mark("first")
        history.back_up(incremental=True)
        history.cluster.psql("INSERT INTO far SELECT generate_series(2001, 3000)")
        history.mark("second")
        second = history.moment("second")
        history.end()
        history.lose()
        shutil.rmtree(old)
        new = owned_folder("new-tablespace")
        try:
            with restored(history, f"--to-time={second.at}", f"--tablespace-map={old}={new}") as found:
                assert len(found.answer["base_backups"]) == 2
                assert found.cluster.value("SELECT count(*) FROM far") == "3000"
                assert found.cluster.value(
                    "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"
                ) == str(new)
                assert found.moment() == (second.marks, second.transactions)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@pytest.mark.left_out
def test_large_segments_pause_and_bad_copies(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """With 64 MB segments, a damaged base backup and `--action pause`, the reported moment is right."""
    with History.begin(postgres18, s3_pair, wal_segment_size_mb=64) as history:
        backup_id = history.back_up()
        history.mark("first")
        first = history.moment("first")
        history.end()
        history.lose()
        _damage(history, f"{backup_id}/base.000000.tar.zst")
        with restored(history, f"--to-time={first.at}", "--action=pause") as found:
            assert found.moment() == (first.marks, first.transactions)
            assert [fault["store"] for fault in found.answer["faults"]] == ["r2"]
            assert found.answer["recovery"]["state"] == "paused"
            assert found.answer["recovery"]["last_commit_at"] is not None
        done = run_restore(history, "--pgdata=/tmp/nowhere", "--store=r2", "--to-time", first.at)
        assert done.returncode == 1
        assert f"{backup_id}/base.000000.tar.zst' could not be had from any store" in done.stderr
        assert not (Path("/tmp/nowhere") / "global" / "pg_control").exists()  # noqa: S108
        shutil.rmtree("/tmp/nowhere", ignore_errors=True)  # noqa: S108


def _damage(history: History, suffix: str) -> None:
    """Change one byte of an object on r2, keeping its size and metadata."""
    client, bucket = history.pair.r2.client(), history.buckets.r2
    key = next(key for key in history.pair.r2.keys(bucket) if key.endswith(suffix))
    found = client.get_object(Bucket=bucket, Key=key)
    data = bytearray(found["Body"].read())
    data[len(data) // 2] ^= 0x5A
    client.put_object(Bucket=bucket, Key=key, Body=bytes(data), Metadata=found["Metadata"])
