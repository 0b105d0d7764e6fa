"""Expiry beside things that it cannot read, on real clusters and S3 servers: nothing that they need goes."""

import contextlib
from collections.abc import Callable

import pytest

from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from wal_pipeline.commands.expire.expire import Expiry
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wiring.expire import expirer
from wal_pipeline.wiring.verify import verifier
from wal_pipeline_tests.support.restore_history import History, restored, run_restore

pytestmark = pytest.mark.integration


MANY_SEGMENTS = """DO $$ BEGIN FOR i IN 1..40 LOOP
    PERFORM pg_logical_emit_message(false, 'a', 'b'), pg_switch_wal();
END LOOP; END $$"""  # so that the new segments' names come after those of the base backup before


def keys_since(history: History, backup_id: str) -> dict[str, set[str]]:
    """Return the keys of the base backups of each store, and of the WAL from the start of one of them."""
    pair, buckets = history.pair, history.buckets
    start = backup_id[-24:]
    return {
        name: {key for key in keys if "/wal/" not in key or key.rpartition("/")[2][:24] >= start}
        for name, keys in (("r2", pair.r2.keys(buckets.r2)), ("b2", pair.b2.keys(buckets.b2)))
    }


def problems(done: Expiry) -> list[str]:
    return [problem for store in done.stores for problem in store.problems]


def test_a_changed_segment_size_takes_nothing_from_the_old_base_backup(
    postgres18: PostgresInstall, s3_pair: S3Pair
) -> None:
    """pg_resetwal --wal-segsize, a base backup after it, expiry: the minutes before can still be restored."""
    with History.begin(postgres18, s3_pair) as history:
        history.environment["WAL_PIPELINE_BASE_BACKUP_WAL_TIMEOUT_SECONDS"] = "5"
        backup_id = history.back_up()
        history.mark("first")
        first = history.moment("first")
        history.cluster.psql(MANY_SEGMENTS)
        history.end()
        old = keys_since(history, backup_id)
        history.cluster.stop()
        history.cluster.run("pg_resetwal", "--wal-segsize=2", "--pgdata", str(history.cluster.pgdata))
        history.cluster.start()
        with contextlib.suppress(WalPipelineError, AssertionError):  # it may be refused, or wait for its WAL in vain
            history.back_up()
        with contextlib.suppress(WalPipelineError):
            history.end()
        done = expirer(history.pipeline).expire()
        for name, keys in keys_since(history, backup_id).items():
            assert old[name] <= keys, problems(done)
        for store in history.pipeline.stores.values():
            newer = [item.key for item in store.list("") if "/base/" in item.key and item.key not in old[store.name]]
            for key in newer:
                store.delete(key)
        history.lose()
        with restored(history, f"--to-time={first.at}") as found:
            assert found.moment() == (first.marks, first.transactions)
            assert found.balances_agree()


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "damaged manifest": ("manifest.json", lambda good: good.replace(b'"version": 1,', b'"version": 2,')),
    "missing manifest": ("manifest.json", None),
    "missing volume": ("base.000000.tar.zst", None),
}


@pytest.mark.parametrize("damage", [*list(DAMAGES)[:-1], pytest.param(list(DAMAGES)[-1], marks=pytest.mark.left_out)])
def test_a_base_backup_that_cannot_be_read_can_be_restored_once_it_is_put_back(
    postgres18: PostgresInstall, s3_pair: S3Pair, damage: str
) -> None:
    """Of two base backups of today the older one is damaged on both stores: no expiry and no repair takes its WAL."""
    part, change = DAMAGES[damage]
    with History.begin(postgres18, s3_pair) as history:
        older = history.back_up()
        history.mark("first")
        first = history.moment("first")
        history.back_up()
        history.mark("second")
        history.end()
        before = keys_since(history, older)
        there = {}
        for server, bucket in ((s3_pair.r2, history.buckets.r2), (s3_pair.b2, history.buckets.b2)):
            client = server.client()
            key = next(key for key in server.keys(bucket) if key.endswith(f"{older}/{part}"))
            found = client.get_object(Bucket=bucket, Key=key)
            data = found["Body"].read()
            there[bucket] = (client, key, data, found["Metadata"])
            client.delete_object(Bucket=bucket, Key=key)
            if change is not None:
                client.put_object(Bucket=bucket, Key=key, Body=change(data), Metadata=found["Metadata"])
        done = expirer(history.pipeline).expire()
        assert not done.is_complete
        assert older in "\n".join(problems(done))
        verifier(history.pipeline).verify(repair=True)
        done = expirer(history.pipeline).expire()
        assert done.is_complete, problems(done)
        for bucket, (client, key, data, metadata) in there.items():
            client.put_object(Bucket=bucket, Key=key, Body=data, Metadata=metadata)
        after = keys_since(history, older)
        assert before["r2"] <= after["r2"]
        assert before["b2"] <= after["b2"]
        history.lose()
        plan = run_restore(history, "--pgdata=/tmp/nowhere", f"--base-backup={older}", "--to-time", first.at, "--plan")
        assert plan.returncode == 0, plan.stderr
