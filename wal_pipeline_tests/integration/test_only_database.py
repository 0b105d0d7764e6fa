"""Tests restores of some databases of a cluster: which bytes come, and that WAL replays onto the others' files."""

from collections.abc import Iterator

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline_tests.support.beside_scene import beside
from wal_pipeline_tests.support.chosen_scene import ChosenScene

pytestmark = pytest.mark.integration
DATABASES = tuple(f"shop_{number}" for number in range(10))


def touch_all(scene: ChosenScene) -> None:
    """Change rows of every database, in many pages."""
    cluster = scene.beside.cluster
    for name in DATABASES:
        cluster.run("pgbench", "-n", "-t", "200", "-c", "1", name)


@pytest.fixture(scope="module")
def shops(postgres_version: PostgresInstall) -> Iterator[ChosenScene]:
    """Ten databases of one size, changed after the base backup."""
    config = "full_page_writes = on\nautovacuum = off\nmax_prepared_transactions = 5\nwal_compression = on\n"
    with beside(postgres_version, config=config) as made:
        scene = ChosenScene(made)
        made.settings["WAL_PIPELINE_BASE_BACKUP_VOLUME_MIB"] = "1"
        cluster = made.cluster
        cluster.make_tablespace("space")
        cluster.psql("CREATE DATABASE shop_0")
        cluster.run("pgbench", "-q", "-i", "-s", "1", "shop_0")
        cluster.psql("CREATE TABLE loaded AS SELECT i, repeat('x', 100) AS x FROM generate_series(1, 20000) i; "
                     "CREATE TABLE hashed (i int); CREATE INDEX ON hashed USING hash (i); INSERT INTO hashed SELECT generate_series(1, 20000);", database="shop_0")
        for name in DATABASES[1:]:
            where = " TABLESPACE space" if name == "shop_8" else ""
            cluster.psql(f"CREATE DATABASE {name} TEMPLATE shop_0 STRATEGY file_copy{where}")
        cluster.psql("CREATE TABLE far TABLESPACE space AS SELECT generate_series(1, 1000) AS i", database="shop_1")
        made.back_up()
        scene.note_names()
        touch_all(scene)
        for name in DATABASES:
            cluster.psql("VACUUM (FREEZE) loaded", database=name)
            cluster.psql("DELETE FROM hashed WHERE i % 3 = 0", database=name)
            cluster.psql("VACUUM hashed", database=name)
        cluster.psql("INSERT INTO far SELECT generate_series(1001, 2000)", database="shop_1")
        cluster.psql("BEGIN; INSERT INTO hashed VALUES (7); PREPARE TRANSACTION 'left'", database="shop_3")
        made.archive()
        yield scene


def test_spike(shops: ChosenScene) -> None:
    made = shops.beside
    sums = made.cluster.psql("SELECT sum(abalance), count(*) FROM pgbench_accounts", database="shop_1")
    whole = shops.run("whole", "--no-archiving", "--plan")
    print(whole.done.stderr)
    with shops.restored("one", "--only-database=shop_1", "--start") as copy:
        print(copy.done.stderr[-3000:])
        print(copy.done.stdout)
        print(copy.log[-6000:])
        print("whole", whole.answer["download_bytes"], "one", copy.answer["download_bytes"], copy.answer["downloaded_bytes"])
        assert copy.done.returncode == 0
        assert copy.psql("shop_1", "SELECT sum(abalance), count(*) FROM pgbench_accounts") == sums
        print(copy.psql("postgres", "select datname, datallowconn, datconnlimit from pg_database"))
    assert 0
