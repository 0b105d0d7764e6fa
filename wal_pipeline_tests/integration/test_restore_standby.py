"""Tests that a restore makes a standby, which follows a living primary and the stores."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from wal_pipeline.wal.names import segment_at
from wal_pipeline_tests.support.open_wal_scene import wait_replayed, write_wal
from wal_pipeline_tests.support.restore_history import History, run_restore, wait_until
from wal_pipeline_tests.support.secret_search import ProcessWatch, SecretSearch
from wal_pipeline_tests.support.shipped_end import ship

pytestmark = pytest.mark.integration
PASSWORD = "pass-wo%rd of: the follower"
HBA = "host replication follower 127.0.0.1/32 scram-sha-256\n"
# Higher than the restored configuration has them, and what no standby beside its primary may have.
QUICK = {"wal_retrieve_retry_interval": "200ms", "listen_addresses": "127.0.0.1"}
SETTINGS = {"max_connections": "120", "wal_keep_size": "0", "password_encryption": "scram-sha-256"}


@dataclass(slots=True)
class Scene:
    """A primary that lives and archives, with a role that replicates by a password, and a base backup on the stores."""

    history: History

    @property
    def primary(self) -> PostgresCluster:
        """The server that the standbys follow."""
        return self.history.cluster

    @property
    def conninfo(self) -> str:
        """How a standby reaches the primary, without the password."""
        return f"host=127.0.0.1 port={self.primary.port} user=follower"

    def archived(self) -> str:
        """Finish the primary's segment and bring it to the stores; return its name."""
        last = self.primary.switch_wal()
        self.primary.process.wait_until((self.history.folder / "spool" / last).exists)
        self.history.archive()
        return last

    @contextmanager
    def standby(self, *options: str) -> Iterator["Standby"]:
        """Restore a standby and start it. Stop it at the end."""
        cluster = PostgresCluster(
            self.history.install,
            owned_folder("standby"),
            settings={"max_connections": "120", **QUICK},
            env=self.history.environment,
        )
        where = {"port": cluster.port, "unix_socket_directories": cluster.socket_folder}
        given = [f"--set={name}={value}" for name, value in {**where, **QUICK}.items()]
        try:
            arguments = (f"--pgdata={cluster.pgdata}", "--standby", "--start", "--json", *given, *options)
            done = run_restore(self.history, *arguments)
            assert done.returncode == 0, done.stderr + done.stdout
            yield Standby(cluster, json.loads(done.stdout), done.stdout + done.stderr)
        finally:
            if (cluster.pgdata / "postmaster.pid").exists():
                cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(cluster.pgdata))
            cluster.remove()


@dataclass(frozen=True, slots=True)
class Standby:
    """A standby that was restored, and all that the command printed."""

    cluster: PostgresCluster
    answer: dict[str, Any]
    output: str

    @property
    def configuration(self) -> dict[str, str]:
        """The settings in its postgresql.auto.conf."""
        lines = (self.cluster.pgdata / "postgresql.auto.conf").read_text().splitlines()
        pairs = (line.partition(" = ") for line in lines if not line.startswith("#"))
        return {name: value.strip("'") for name, _, value in pairs}

    @property
    def streams(self) -> bool:
        """Whether it receives WAL from its primary now."""
        return self.cluster.value("SELECT status FROM pg_stat_wal_receiver") == "streaming"

    def count(self) -> int:
        """Return the number of marks that it shows."""
        return int(self.cluster.value("SELECT count(*) FROM marks"))

    def start_again(self) -> None:
        """Start its server after a stop, with what the data directory says."""
        self.cluster.start()

    def stop(self) -> None:
        """Stop its server."""
        self.cluster.run("pg_ctl", "stop", "--mode=fast", "--pgdata", str(self.cluster.pgdata))


@pytest.fixture(scope="module")
def scene(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Scene]:
    """The role's password is asked for by pg_hba.conf; the restored configuration archives 'always'."""
    with History.begin(postgres_version, s3_pair, settings=SETTINGS) as history:
        primary = history.cluster
        primary.psql(f"CREATE ROLE follower REPLICATION LOGIN PASSWORD '{PASSWORD}'")
        hba = primary.pgdata / "pg_hba.conf"
        hba.write_text(HBA + hba.read_text())
        with (primary.pgdata / "postgresql.conf").open("a") as configuration:
            configuration.write("archive_mode = always\nrecovery_target_time = '2026-01-01 00:00:00+00'\n")
        primary.psql("SELECT pg_reload_conf()")
        history.back_up()
        history.mark("first")
        made = Scene(history)
        made.archived()
        yield made


def test_a_standby_streams_on_and_its_password_is_seen_nowhere(scene: Scene) -> None:
    """It shows what is archived nowhere yet. The password is in postgresql.auto.conf alone, which nobody else reads."""
    scene.history.environment["WAL_PIPELINE_PRIMARY_CONNINFO"] = f"{scene.conninfo} password='{PASSWORD}'"
    scene.primary.psql("SELECT pg_create_physical_replication_slot('a_standby', true)")
    search = SecretSearch({"password": PASSWORD})
    try:
        with ProcessWatch(search) as watch, scene.standby("--slot=a_standby") as standby:
            assert standby.answer["recovery"]["state"] == "following"
            wait_until(lambda: standby.streams)
            scene.primary.psql("INSERT INTO marks VALUES (1000)")
            wait_until(lambda: standby.cluster.value("SELECT count(*) FROM marks WHERE n = 1000") == "1")
            assert scene.primary.value("SELECT active FROM pg_replication_slots") == "t"
            assert standby.cluster.value("SHOW recovery_target_time") == ""
            found = search.in_files([standby.cluster.folder, scene.history.folder, scene.primary.folder])
            assert [one.place for one in found] == [str(standby.cluster.pgdata / "postgresql.auto.conf")]
            assert (standby.cluster.pgdata / "postgresql.auto.conf").stat().st_mode & 0o777 == 0o600
            assert search.in_bytes(standby.output.encode()) == []
            assert standby.configuration["archive_mode"] == "on"
            assert standby.configuration["max_connections"] == "120"
            assert len(standby.answer["configuration_changed"]) == 2
            assert f"the primary at 127.0.0.1, port {scene.primary.port} answers" in " ".join(standby.answer["notes"])
        assert watch.findings == set()
    finally:
        del scene.history.environment["WAL_PIPELINE_PRIMARY_CONNINFO"]
        scene.primary.psql("SELECT pg_drop_replication_slot('a_standby')")


def test_a_standby_that_fell_behind_goes_on_from_the_stores(scene: Scene) -> None:
    """Its primary has removed the WAL that it needs next; it fetches it from the stores, then it streams again."""
    passfile = scene.history.folder / "passfile"
    passfile.write_text(f"127.0.0.1:*:*:follower:{PASSWORD.replace(':', chr(92) + ':')}\n")
    passfile.chmod(0o600)
    shutil.chown(passfile, *_owner(scene.history.folder / "spool"))
    with scene.standby(f"--primary-conninfo={scene.conninfo} passfile={passfile}") as standby:
        wait_until(lambda: standby.streams)
        standby.stop()
        needed = segment_at(1, write_wal(scene.primary), 1 << 20).name
        for _ in range(3):
            write_wal(scene.primary, 1500)
            scene.archived()
        scene.primary.psql("CHECKPOINT")
        write_wal(scene.primary, 1500)
        scene.archived()
        scene.primary.psql("CHECKPOINT")
        assert not (scene.primary.pgdata / "pg_wal" / needed).exists()
        standby.start_again()
        wait_replayed(standby.cluster, write_wal(scene.primary))
        wait_until(lambda: standby.streams)
        assert f'restored log file "{needed}" from archive' in standby.cluster.log.read_text()


def test_a_standby_of_the_stores_alone_takes_no_piece_for_a_segment(scene: Scene) -> None:
    """The open segment is shipped, and is no part of the plan; it comes when it is archived as a whole."""
    scene.archived()
    scene.primary.psql("INSERT INTO marks VALUES (2000)")
    end = ship(scene.history)
    open_segment = segment_at(1, end, 1 << 20).name
    with scene.standby() as standby:
        assert standby.answer["wal"]["shipped_to_lsn"] is None
        assert "--tail" not in standby.configuration["restore_command"]
        before = standby.count()
        assert not (standby.cluster.pgdata / "pg_wal" / open_segment).exists()
        assert standby.cluster.value("SELECT count(*) FROM marks WHERE n = 2000") == "0"
        scene.archived()
        wait_until(lambda: standby.count() == before + 1)


def test_a_standby_follows_a_promotion_through_the_stores(scene: Scene) -> None:
    """One standby is promoted and archives its new timeline; another one, which has no primary, goes over to it."""
    spool = scene.history.folder / "spool"
    archive = f"cp %p {spool}/.%f && mv {spool}/.%f {spool}/%f"
    with scene.standby() as follower, scene.standby() as chosen:
        chosen.stop()
        chosen.cluster.settings |= {"archive_mode": "on", "archive_command": archive}
        chosen.start_again()
        chosen.cluster.promote()
        chosen.cluster.psql("INSERT INTO marks VALUES (3000)")
        last = chosen.cluster.switch_wal()
        assert last.startswith("00000002")
        chosen.cluster.process.wait_until((spool / last).exists)
        scene.history.archive()
        wait_until(lambda: follower.cluster.value("SELECT count(*) FROM marks WHERE n = 3000") == "1")
        # The primary of timeline 1 is now the wrong one for a new standby, and its timeline must be named.
        options = (f"--pgdata={scene.history.folder}/none", "--standby", "--plan", "--json")
        conninfo = f"--primary-conninfo=host=127.0.0.1 port={scene.primary.port} user=postgres"
        refused = json.loads(run_restore(scene.history, *options, conninfo).stdout)["will_refuse"]
        assert any("is on timeline 1, and the stores have timeline 2" in one["message"] for one in refused)
        allowed = json.loads(run_restore(scene.history, *options, conninfo, "--timeline=1").stdout)
        assert allowed["will_refuse"] == []
        assert allowed["timeline"] == 1


def _owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid
