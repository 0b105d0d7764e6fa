"""Tests restores of some databases of a cluster: which bytes come, and that WAL replays onto the others' files."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyrage
import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline.commands.restore.chosen.left_out import LEFT_OUT_WORD
from wal_pipeline_tests.support.beside_scene import beside
from wal_pipeline_tests.support.chosen_scene import ChosenScene, Copy

pytestmark = pytest.mark.integration

_DATABASES = tuple(f"shop_{number}" for number in range(10))
_WANTED, _IN_SPACE, _PREPARED, _COPIED_FROM = "shop_1", "shop_8", "shop_3", "shop_4"
_SUMS = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT count(*) FROM pgbench_history), "
    "(SELECT count(*) FROM hashed), (SELECT sum(i) FROM far)"
)
_LOAD = (
    "CREATE TABLE loaded AS SELECT i, repeat('x', 100) AS x FROM generate_series(1, 2000) i; "
    "CREATE TABLE hashed (i int); CREATE INDEX ON hashed USING hash (i); "
    "INSERT INTO hashed SELECT 7 FROM generate_series(1, 5000);"
)
# WAL without the whole page: VACUUM marks pages as all visible, where neither checksums nor wal_log_hints are on, and
# names a hash index's first page of a bucket where it cleans the bucket's other pages.
_TENDER = "VACUUM loaded; DELETE FROM hashed WHERE ctid > '(18,0)'; VACUUM (INDEX_CLEANUP on) hashed"
_SERVER = (
    "autovacuum = off\nmax_prepared_transactions = 5\nmax_wal_senders = 4\nfull_page_writes = on\nwal_level = replica\n"
)


@dataclass(slots=True)
class Shops:
    """Ten databases of one size, with WAL for all of them after two base backups; the second may build on the first."""

    scene: ChosenScene
    first: str
    second: str
    sums: str

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.scene.beside.install.version


def change_all(scene: ChosenScene) -> None:
    """Change rows of every database, in many pages."""
    cluster = scene.beside.cluster
    for name in _DATABASES:
        cluster.run("pgbench", "-n", "-t", "100", "-c", "1", name)
        for sql in _TENDER.split("; "):
            cluster.psql(sql, database=name)


def take(scene: ChosenScene, *words: str) -> str:
    """Take a base backup, with which the list of relations is kept, and return its id."""
    answer = json.loads(scene.beside.must("backup", "--json", *words).splitlines()[-1])
    return str(answer["backup_id"])


@pytest.fixture(scope="module")
def shops(postgres_version: PostgresInstall) -> Iterator[Shops]:
    """On PostgreSQL 18 in encrypted volumes and a chain; on 15 file by file, and then with full_page_writes off."""
    newer = postgres_version.version >= 17
    given = {"summarize_wal": "on"} if newer else {}
    with beside(postgres_version, config=_SERVER, command_line=given) as made:
        scene, cluster = ChosenScene(made), made.cluster
        made.settings["WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB"] = "1"
        made.settings["WAL_PIPELINE_BACKUP_METHOD"] = "remote" if newer else "local"
        if newer:
            identity = pyrage.x25519.Identity.generate()
            key = made.folder / "age.key"
            key.write_text(str(identity))
            key.chmod(0o644)
            made.settings["WAL_PIPELINE_AGE_RECIPIENTS"] = str(identity.to_public())
            made.settings["WAL_PIPELINE_AGE_IDENTITY_FILE"] = str(key)
        cluster.make_tablespace("space")
        cluster.make_tablespace("second")
        cluster.psql("CREATE DATABASE shop_0")
        cluster.run("pgbench", "-q", "-i", "-s", "1", "shop_0")
        cluster.psql(_LOAD, database="shop_0")
        cluster.psql("CREATE TABLE far TABLESPACE space AS SELECT generate_series(1, 1000) AS i", database="shop_0")
        for name in _DATABASES[1:]:
            where = " TABLESPACE second" if name == _IN_SPACE else ""
            cluster.psql(f"CREATE DATABASE {name} TEMPLATE shop_0 STRATEGY file_copy{where}")
        first = take(scene)
        change_all(scene)
        second = take(scene, *(("--incremental",) if newer else ()))
        if not newer:
            cluster.psql("ALTER SYSTEM SET full_page_writes = off")
            cluster.psql("SELECT pg_reload_conf()")
        cluster.psql("INSERT INTO far SELECT generate_series(1001, 2000)", database=_WANTED)
        change_all(scene)
        cluster.psql("BEGIN; INSERT INTO far VALUES (7); PREPARE TRANSACTION 'left'", database=_PREPARED)
        cluster.psql(f"CREATE DATABASE file_copied TEMPLATE {_COPIED_FROM} STRATEGY file_copy")
        cluster.psql(f"CREATE DATABASE wal_logged TEMPLATE {_COPIED_FROM} STRATEGY wal_log")
        made.must("relations", "--keep")
        cluster.psql("ALTER DATABASE shop_5 RENAME TO renamed")
        made.archive()
        yield Shops(scene, first, second, cluster.psql(_SUMS, database=_WANTED))


def require_done(copy: Copy) -> None:
    """Fail with all that was said where the restore failed."""
    assert copy.done.returncode == 0, copy.done.stdout + copy.done.stderr


def amcheck(copy: Copy, database: str) -> None:
    """Check every table and index of a database, and every one that all databases share."""
    where = ("-h", "127.0.0.1", "-p", str(copy.port), "-U", "postgres")
    copy.scene.cluster.run("pg_amcheck", "--install-missing", "--heapallindexed", *where, database)


def test_one_database_comes_with_a_tenth_of_the_bytes(shops: Shops) -> None:
    """It is whole, as it is on the original, and the others are gone; also from volumes that are encrypted."""
    scene = shops.scene
    full = scene.run("planned", "--no-archiving", "--plan", "--base-backup", shops.first)
    none = scene.run("planned", "--only-database=postgres", "--plan", "--base-backup", shops.first)
    require_done(full)
    require_done(none)
    words = (f"--only-database={_WANTED}", "--base-backup", shops.first, "--start")
    with scene.restored("one", *words) as copy:
        require_done(copy)
        answer = copy.answer
        everything, shared, came = (
            full.answer["download_bytes"],
            none.answer["download_bytes"],
            answer["downloaded_bytes"],
        )
        assert came == answer["download_bytes"]
        assert answer["saved_bytes"] == everything - came
        assert came - shared <= (everything - shared) / len(_DATABASES) * 1.25, (everything, shared, came)
        assert answer["archiving"] is False
        assert answer["only_databases"] == [_WANTED]
        assert set(answer["left_out_databases"]) == {*_DATABASES, "file_copied", "wal_logged"} - {_WANTED}
        assert copy.psql(_WANTED, _SUMS) == shops.sums
        amcheck(copy, _WANTED)
        assert answer["kept_databases"] == [_WANTED]
        assert {*answer["dropped_databases"], _PREPARED} == {
            *({*_DATABASES} - {_WANTED, "shop_5"}),
            *("renamed", "file_copied", "wal_logged"),
        }
        assert "There is 1 prepared transaction using the database." in answer["closed_databases"][_PREPARED]
        assert "not currently accepting connections" in copy.refusal(_PREPARED) or "invalid" in copy.refusal(_PREPARED)
        there = copy.psql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")
        assert there == f"postgres {_WANTED} {_PREPARED} template0 template1"
        assert "ignore_invalid_pages" not in (copy.pgdata / "postgresql.auto.conf").read_text()


def test_a_person_who_starts_the_server_never_sees_an_empty_database(shops: Shops) -> None:
    """Without the setting that the restore leaves, replay would stop; with it the others let nobody in."""
    with shops.scene.restored("started", "--only-database", _WANTED, "--base-backup", shops.first) as copy:
        require_done(copy)
        lines = copy.answer["drop_them_with"]
        assert 'DROP DATABASE "shop_2";' in lines
        copy.start(ignore_invalid_pages="off")
        copy.wait_for_log("PANIC:  WAL contains references to invalid pages")
        copy.wait_until_gone()
        copy.start(autovacuum="on", autovacuum_naptime="1s", autovacuum_analyze_threshold="1", hot_standby="off")
        copy.wait_for_log("database system is ready to accept connections")
        copy.psql(_WANTED, "INSERT INTO far SELECT generate_series(1, 100000)")
        analyzed = "SELECT autoanalyze_count > 0 FROM pg_stat_user_tables WHERE relname = 'far'"
        deadline = time.monotonic() + 120
        while copy.psql(_WANTED, analyzed) != "t":
            assert time.monotonic() < deadline, copy.log[-4000:]
            time.sleep(0.2)
        for name in ("shop_0", _IN_SPACE, "renamed"):
            assert LEFT_OUT_WORD in copy.refusal(name)
        assert copy.psql(_WANTED, _SUMS).split("|")[:3] == shops.sums.split("|")[:3]
        for line in lines:
            if _PREPARED not in line and "shop_5" not in line:
                copy.psql("postgres", line)
        assert copy.log.count("PANIC:  ") == 1
        assert copy.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop%'") == "2"


def test_a_chain_and_a_pause(shops: Shops) -> None:
    """From the newest base backup, an incremental one on 18: read-only, the others refuse, with the lines to type."""
    with shops.scene.restored(
        "paused",
        "--only-database",
        _WANTED,
        "--only-database=wal_logged",
        "--start",
        "--action=pause",
        *_before_end(shops),
    ) as copy:
        require_done(copy)
        answer = copy.answer
        assert len(answer["base_backups"]) == (2 if shops.major >= 17 else 1)
        assert answer["recovery"]["state"] == "paused"
        assert answer["saved_bytes"] > answer["downloaded_bytes"]
        assert answer["dropped_databases"] == []
        assert answer["drop_them_with"]
        assert copy.psql(_WANTED, _SUMS) == shops.sums
        assert copy.psql("wal_logged", "SELECT count(*) FROM far") == "1000"
        assert LEFT_OUT_WORD in copy.refusal("shop_2")
        assert LEFT_OUT_WORD in copy.refusal("file_copied")


def _before_end(shops: Shops) -> tuple[str, ...]:
    cluster = shops.scene.beside.cluster
    cluster.psql("CREATE TABLE IF NOT EXISTS later (i int)")
    xid = cluster.psql("BEGIN; INSERT INTO later VALUES (1); SELECT txid_current(); COMMIT").split()[0]
    shops.scene.beside.archive()
    return (f"--to-xid={int(xid)}",)


@pytest.mark.left_out
def test_a_database_copied_from_one_left_out_is_said_to_be_empty(shops: Shops) -> None:
    """Its files were copied while the server recovered, and there was nothing in them."""
    with shops.scene.restored("copied", "--only-database=file_copied", "--start") as copy:
        assert copy.done.returncode == 1
        assert "database 'file_copied' has no content: it was created after the base backup" in copy.done.stderr
        assert LEFT_OUT_WORD in copy.refusal("file_copied")


def test_without_a_list_all_comes_and_the_others_are_dropped(shops: Shops) -> None:
    """Nothing is saved, which the plan says."""
    with (
        shops.scene.without_lists(),
        shops.scene.restored("unlisted", "--only-database=shop_2", "--start") as copy,
    ):
        require_done(copy)
        answer = copy.answer
        assert answer["saved_bytes"] == 0
        assert any("no list of the cluster's databases" in note for note in answer["notes"])
        assert answer["kept_databases"] == ["shop_2"]
        assert {_WANTED, "renamed", "file_copied"} <= set(answer["dropped_databases"])


def test_a_wrong_name_and_a_replacement_are_refused(shops: Shops) -> None:
    """The nearest names and all there are; and a server with some databases takes nobody's place."""
    wrong = shops.scene.run("wrong", "--only-database=shop1", "--plan").done
    assert wrong.returncode == 1
    assert "no database is called 'shop1' (did you mean 'shop_1' or " in wrong.stderr
    assert "expected one of: file_copied, postgres, shop_0, shop_1, " in wrong.stderr
    replaced = shops.scene.run("wrong", "--only-database=shop_1", "--archiving", "--plan").done
    assert replaced.returncode == 1
    assert "a server with only some of the databases cannot take its original's place" in replaced.stderr
