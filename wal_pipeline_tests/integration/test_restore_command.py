"""Tests our restore_command with PostgreSQL itself: an outage never passes as the end of the archive."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from testbed.tls import TlsFiles
from wal_pipeline_tests.support.connect_proxy import ConnectProxy
from wal_pipeline_tests.support.restore_scene import Scene, make_scene, run_archive_get

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles) -> Iterator[S3Pair]:
    """Two S3 servers for this module, which stops and starts them."""
    with S3Pair.start(tmp_path_factory.mktemp("restore-s3"), tls=tls_files) as pair:
        yield pair


@pytest.fixture(scope="module")
def scene(postgres_version: PostgresInstall, pair: S3Pair) -> Iterator[Scene]:
    """One lost cluster of each PostgreSQL version."""
    made = make_scene(postgres_version, pair)
    yield made
    shutil.rmtree(made.base.parent, ignore_errors=True)


@pytest.fixture
def pgdata(scene: Scene) -> Iterator[Path]:
    """A data directory with the base backup in it."""
    folder = scene.fresh_folder()
    yield folder
    shutil.rmtree(folder.parent, ignore_errors=True)


@contextmanager
def cut_off_at(segment: str, scene: Scene, pgdata: Path, *options: str) -> Iterator[PostgresCluster]:
    """Start a server, stop its stores when it asks for a segment, and start them again at the end."""
    reached, go = pgdata.parent / "reached", pgdata.parent / "go"
    hold = f"case %f in {segment}) touch {reached}; while [ ! -e {go} ]; do sleep 0.05; done;; esac; "
    line = scene.restore_command(pgdata, "--retry-seconds=1", "--no-prefetch", *options)
    server = scene.start(pgdata, hold + line)
    try:
        server.process.wait_until(reached.exists)
        for store in scene.pair.servers:
            store.stop()
        go.touch()
        yield server
    finally:
        server.remove()
        for store in scene.pair.servers:
            if not store.is_running:
                store.start()


def test_an_outage_mid_recovery_stops_the_server_and_recovery_goes_on_later(scene: Scene, pgdata: Path) -> None:
    """With both stores down the server ends with an error and does not open; later it continues."""
    middle = scene.segments[len(scene.segments) // 2]
    with cut_off_at(middle, scene, pgdata) as server:
        assert server.process.wait(timeout_seconds=120) != 0
        log = server.log.read_text()
        assert f'could not restore file "{middle}" from archive: child process exited with exit code 200' in log
        assert f"'{middle}' could not be had from any store" in log
        assert "archive recovery complete" not in log
        assert "in archive recovery" in server.run("pg_controldata", str(pgdata))
        assert (pgdata / "recovery.signal").exists()
        for store in scene.pair.servers:
            store.start()
        server.start(wait=False)
        server.wait_promoted(timeout_seconds=120)
        assert (
            server.psql("SELECT count(*), timeline_id FROM t, pg_control_checkpoint() GROUP BY 2") == f"{scene.rows}|2"
        )


@pytest.mark.left_out
@pytest.mark.newest_version
def test_a_standby_outlives_an_outage(scene: Scene, pgdata: Path) -> None:
    """With --standby the server logs the outage, keeps serving, and replays the rest when the stores are back."""
    (pgdata / "recovery.signal").rename(pgdata / "standby.signal")
    middle = scene.segments[len(scene.segments) // 2]
    with cut_off_at(middle, scene, pgdata, "--standby") as server:
        server.process.wait_until(lambda: server.log.read_text().count("This is a standby: PostgreSQL asks again.") > 2)
        assert server.is_running
        for store in scene.pair.servers:
            store.start()
        server.process.wait_until(lambda: server.value("SELECT count(*) FROM t") == str(scene.rows))
        assert server.value("SELECT pg_is_in_recovery()") == "t"
        (pgdata / "standby.signal").rename(pgdata / "recovery.signal")
        silent = {**scene.environment, "B2_ENDPOINT_URL": "https://127.0.0.1:9"}
        words = ("--no-prefetch", "--standby", "--retry-seconds=0", "0000000F.history", str(pgdata.parent / "out"))
        assert run_archive_get(silent, *words, cwd=pgdata).returncode == 200


@pytest.mark.newest_version
def test_each_copy_needs_to_be_good_on_one_store_only(scene: Scene, pgdata: Path) -> None:
    """With corrupt, truncated and deleted copies on alternate stores, all commits are there in the end."""
    pipeline = scene.pipeline
    for number, name in enumerate(scene.segments):
        server, bucket = ((scene.pair.r2, scene.buckets.r2), (scene.pair.b2, scene.buckets.b2))[number % 2]
        key = next(key for key in server.keys(bucket) if name in key)
        stored = server.client().get_object(Bucket=bucket, Key=key)
        data = stored["Body"].read()
        bad = data[:-7] if number % 4 < 2 else data[: len(data) // 2] + b"\0" + data[len(data) // 2 + 1 :]
        pipeline.stores[server.name].delete(key)
        if number % 5:
            server.client().put_object(Bucket=bucket, Key=key, Body=bad, Metadata=stored["Metadata"])
    server = scene.start(pgdata, scene.restore_command(pgdata, "--retry-seconds=1"))
    try:
        server.wait_promoted(timeout_seconds=120)
        assert server.value("SELECT count(*) FROM t") == str(scene.rows)
    finally:
        server.remove()


@pytest.mark.newest_version
@pytest.mark.parametrize(
    ("program", "code"), [("/nowhere/python", 127), ("false", 200), ("sh -c 'exit 2'", 200), ("sh -c 'exit 103'", 200)]
)
def test_whatever_breaks_in_the_line_stops_the_server(scene: Scene, pgdata: Path, program: str, code: int) -> None:
    """A missing program, Python's exit code 1 after a failed import and other failures stop the recovery."""
    line = scene.restore_command(pgdata)
    begin = line.index("exit 0; ") + len("exit 0; ")
    server = scene.start(pgdata, line[:begin] + program + line[line.index(' "%f" "%p"; r=$?') :])
    try:
        assert server.process.wait(timeout_seconds=60) != 0
        assert f"child process exited with exit code {code}" in server.log.read_text() or code == 127
        assert "archive recovery complete" not in server.log.read_text()
    finally:
        server.remove()


@pytest.mark.newest_version
def test_exit_codes(scene: Scene, pgdata: Path) -> None:
    """The code is 0 for a file, 1 for proven absence, 200 for a silent store or a wrong call or setting."""
    folder = owned_folder("exit-codes")

    def code(*arguments: str, **changes: str) -> int:
        return run_archive_get(
            {**scene.environment, **changes}, "--no-prefetch", "--retry-seconds=0", *arguments, cwd=pgdata
        ).returncode

    try:
        wanted, target = scene.segments[-1], str(folder / "out")
        assert code(wanted, target) == 0
        assert (folder / "out").stat().st_size == 1 << 20
        assert code("0000000F.history", target) == 1
        assert code("--exit-absent=100", "0000000F.history", target) == 100
        assert code("0000000F.history", target, R2_ENDPOINT_URL="https://127.0.0.1:9") == 200
        assert code("0000000F.history", target, R2_SECRET_ACCESS_KEY="wrong") == 200
        assert code("0000000F.history", target, WAL_PIPELINE_CLUSTER="misspelt") == 200
        assert code("0000000F.history", target, B2_BUCKET_NAME="no-such-bucket") == 200
        assert code("0000000F.history", target, WAL_PIPELINE_NONSENSE="1") == 200
        assert code("no-wal-name", target) == 200
        assert code(wanted) == 200
        assert code("--nonsense", wanted, target) == 200
        assert code(wanted, "/nowhere/out") == 200
        assert [path.name for path in folder.iterdir()] == ["out"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.newest_version
def test_a_server_without_an_environment_is_not_cut_off_behind_a_proxy(scene: Scene, pgdata: Path) -> None:
    """An init system starts it with nothing: the settings file, which its restore_command names, has the proxy."""
    file, out = pgdata.parent / "stores.env", pgdata.parent / "out"
    with ConnectProxy() as proxy:
        lines = {**scene.environment, "HTTPS_PROXY": proxy.url, "NO_PROXY": "example.org"}
        file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        file.chmod(0o644)
        words = (f"--env-file={file}", "--no-prefetch", "--retry-seconds=0", scene.segments[0], str(out))
        done = run_archive_get({}, *words, cwd=pgdata)
        assert done.returncode == 0, done.stderr
        assert out.stat().st_size == 1 << 20
        assert set(proxy.targets) <= {server.endpoint_url.removeprefix("https://") for server in scene.pair.servers}
        assert proxy.targets != []
