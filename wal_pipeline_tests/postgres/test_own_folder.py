"""A restored configuration that names its original's folder opens its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres, postgres_user
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.own_folder import keep_own_folder
from wal_pipeline.postgres.recovery_server import ServerUser

pytestmark = pytest.mark.integration


def keep(cluster: PostgresCluster, pgdata: Path) -> tuple[str, ...]:
    """Look at a folder as PostgreSQL's user."""
    user = postgres_user()
    binaries = Binaries(cluster.install.bin_folder, cluster.install.version)
    return keep_own_folder(pgdata, binaries, ServerUser(user.uid, user.gid))


def test_a_server_started_by_hand_does_not_open_the_original(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster], postgres_folder: Path
) -> None:
    """Neither the file's own line nor one of a file that it includes is the last word."""
    cluster = make_cluster(postgres_version)
    (cluster.pgdata / "more.conf").write_text(f"data_directory = '{cluster.pgdata}'\n")
    (cluster.pgdata / "more.conf").chmod(0o644)
    with (cluster.pgdata / "postgresql.conf").open("a") as file:
        file.write(f"data_directory = '{cluster.pgdata}'\ninclude = 'more.conf'")
    copy = postgres_folder / "it's a copy"
    shutil.copytree(cluster.pgdata, copy)
    give_to_postgres(copy)
    assert keep(cluster, cluster.pgdata) == ()
    config = copy / "postgresql.conf"
    assert keep(cluster, copy) == (f"data_directory is '{copy}' in '{config}', it was '{cluster.pgdata}'",)
    assert cluster.run("postgres", "-D", str(copy), "-C", "data_directory").strip() == str(copy)
    assert keep(cluster, copy) == ()


def test_a_link_is_not_written_through(
    postgres18: PostgresInstall, make_cluster: Callable[..., PostgresCluster]
) -> None:
    """The file may be the original's: it is named, with what to do."""
    cluster = make_cluster(postgres18)
    outside = cluster.folder / "outside.conf"
    outside.write_text("data_directory = '/srv/original'\n")
    outside.chmod(0o644)
    (cluster.pgdata / "postgresql.conf").unlink()
    (cluster.pgdata / "postgresql.conf").symlink_to(outside)
    with pytest.raises(PostgresError, match="may name another data directory, and cannot be changed") as caught:
        keep(cluster, cluster.pgdata)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Take data_directory out of it before you start the server")
    assert outside.read_text() == "data_directory = '/srv/original'\n"


def test_a_folder_without_a_configuration_is_left_alone(
    postgres18: PostgresInstall, make_cluster: Callable[..., PostgresCluster]
) -> None:
    """Debian keeps it elsewhere."""
    cluster = make_cluster(postgres18)
    (cluster.pgdata / "postgresql.conf").unlink()
    assert keep(cluster, cluster.pgdata) == ()
    assert not (cluster.pgdata / "postgresql.conf").exists()


def test_a_file_that_cannot_be_read_yet_does_not_open_the_original(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster], postgres_folder: Path
) -> None:
    """A locale that this machine lacks hides the line; the copy opens its own folder once the locale is there."""
    cluster = make_cluster(postgres_version)
    copy = postgres_folder / "copy"
    shutil.copytree(cluster.pgdata, copy)
    give_to_postgres(copy)
    config = copy / "postgresql.conf"
    readable = config.read_text() + f"data_directory = '{cluster.pgdata}'\n"
    config.write_text(f"{readable}lc_time = 'xx_XX.UTF-8'\n")
    (said,) = keep(cluster, copy)
    assert f"data_directory is '{copy}' in '{config}', which PostgreSQL's program cannot read yet" in said
    assert 'invalid value for parameter "lc_time": "xx_XX.UTF-8"' in said
    assert keep(cluster, copy) == ()
    config.write_text(config.read_text().replace("lc_time = 'xx_XX.UTF-8'", ""))
    assert cluster.run("postgres", "-D", str(copy), "-C", "data_directory").strip() == str(copy)
