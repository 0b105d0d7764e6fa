"""Tests what is changed in the configuration of a standby, as PostgreSQL itself reads it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres, owned_folder
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest
from wal_pipeline.commands.restore.standby.request import StandbyRequest
from wal_pipeline.commands.restore.standby.settings import fit_for_standby, following_settings
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.recovery import replace_settings, write_recovery_settings
from wal_pipeline_tests.support.prepared_standby import prepare_standby

pytestmark = pytest.mark.integration
LOW = "max_connections = 7\nmax_wal_senders = 2\nreserved_connections = 0\n"


@pytest.fixture
def cluster(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A data directory whose control file has initdb's values: 100 connections, 10 senders."""
    made = PostgresCluster(postgres18).initdb()
    yield made
    made.remove()


def prepared(cluster: PostgresCluster, config_file: Path | None = None) -> PreparedRestore:
    """Return a restore of a standby into the data directory."""
    return prepare_standby(cluster.install, StandbyRequest(), pgdata=cluster.pgdata, config_file=config_file)


def own_lines(cluster: PostgresCluster) -> list[str]:
    """Return the lines of postgresql.auto.conf that are no comments."""
    lines = (cluster.pgdata / "postgresql.auto.conf").read_text().splitlines()
    return sorted(line for line in lines if line and not line.startswith("#"))


def test_what_would_end_a_standby_is_changed(cluster: PostgresCluster) -> None:
    """PostgreSQL pauses a hot standby with less than its primary, and 'always' fills its disk."""
    with (cluster.pgdata / "postgresql.conf").open("a") as file:
        file.write(f"{LOW}archive_mode = always\n")
    words = fit_for_standby(prepared(cluster))
    assert own_lines(cluster) == ["archive_mode = 'on'", "max_connections = '100'", "max_wal_senders = '10'"]
    assert words[0] == "max_connections is 100 in postgresql.auto.conf, as on the primary; it was 7"
    assert words[-1].startswith("archive_mode is 'on' in postgresql.auto.conf, it was 'always'")
    assert fit_for_standby(prepared(cluster)) == ()


def test_debians_configuration_is_read_where_it_is(cluster: PostgresCluster) -> None:
    """It lies outside the data directory; postgresql.auto.conf, which is inside, wins over it."""
    outside = owned_folder("etc")
    (cluster.pgdata / "postgresql.conf").rename(outside / "postgresql.conf")
    with (outside / "postgresql.conf").open("a") as file:
        file.write(f"data_directory = '{cluster.pgdata}'\nhba_file = '{cluster.pgdata}/pg_hba.conf'\n{LOW}")
    give_to_postgres(outside)
    assert len(fit_for_standby(prepared(cluster, outside / "postgresql.conf"))) == 2
    assert own_lines(cluster) == ["max_connections = '100'", "max_wal_senders = '10'"]


def test_a_configuration_that_cannot_be_read_is_told(cluster: PostgresCluster) -> None:
    """Nothing is changed, and the restore goes on: all data is there."""
    (cluster.pgdata / "postgresql.conf").unlink()
    (words,) = fit_for_standby(prepared(cluster))
    assert words.startswith("nothing, for the configuration cannot be read: archive_mode must not be 'always'")
    assert own_lines(cluster) == []


def test_the_file_stays_the_servers_and_closed(cluster: PostgresCluster) -> None:
    """It may hold the password of the primary."""
    path = cluster.pgdata / "postgresql.auto.conf"
    with path.open("a") as file:
        file.write("primary_conninfo = 'password=x'")  # without an end of the line
    with (cluster.pgdata / "postgresql.conf").open("a") as file:
        file.write(LOW)
    owner = path.stat().st_uid
    fit_for_standby(prepared(cluster))
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (owner, 0o600)
    assert "primary_conninfo = 'password=x'" in own_lines(cluster)
    assert os.listdir(cluster.pgdata).count("postgresql.auto.conf.wal-pipeline") == 0  # noqa: PTH208


def test_another_servers_configuration_stays(cluster: PostgresCluster) -> None:
    """Only a standby's is changed."""
    made = prepared(cluster)
    assert fit_for_standby(replace(made, request=replace(made.request, standby=None))) == ()


def test_a_standby_has_no_target_and_no_bound() -> None:
    """An empty value in postgresql.auto.conf wins over a target that stands in postgresql.conf."""
    standby = StandbyRequest("host=a", "s")
    values = following_settings(RestoreRequest(Path("/srv/pgdata")), standby, "get %f %p").values()
    targets = {name: value for name, value in values.items() if name.startswith("recovery_target")}
    assert targets.pop("recovery_target_timeline") == "latest"
    assert set(targets.values()) == {""}
    assert len(targets) == 5
    assert (values["restore_command"], values["hot_standby"]) == ("get %f %p", "on")
    assert (values["primary_conninfo"], values["primary_slot_name"]) == ("host=a", "s")
    assert values["archive_cleanup_command"] == values["recovery_end_command"] == ""


def test_a_standby_that_is_there_keeps_its_primary(tmp_path: Path) -> None:
    """Unless another one is named: then both its connection and its slot are replaced."""
    request = RestoreRequest(tmp_path, wal_only=True, target=RecoveryTarget(timeline=4))
    path = tmp_path / "postgresql.auto.conf"
    path.write_text("primary_conninfo = 'host=old'\nprimary_slot_name = 'old'\nrecovery_target_lsn = '0/1'\n")
    (tmp_path / "recovery.signal").touch()
    write_recovery_settings(tmp_path, following_settings(request, StandbyRequest(), "get %f %p"))
    lines = path.read_text().splitlines()
    assert {"primary_conninfo = 'host=old'", "primary_slot_name = 'old'"} <= set(lines)
    assert "recovery_target_timeline = '4'" in lines
    assert "recovery_target_lsn = '0/1'" not in lines
    assert sorted(one.name for one in tmp_path.iterdir()) == ["postgresql.auto.conf", "standby.signal"]
    write_recovery_settings(tmp_path, following_settings(request, StandbyRequest("host=new"), "get %f %p"))
    found = [line for line in path.read_text().splitlines() if line.startswith("primary_")]
    assert found == ["primary_conninfo = 'host=new'", "primary_slot_name = ''"]


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    """As root we would copy what it points to into a file of the server's user."""
    secret = tmp_path / "secret"
    secret.write_text("root's alone\n")
    pgdata = tmp_path / "pgdata"
    pgdata.mkdir()
    (pgdata / "postgresql.auto.conf").symlink_to(secret)
    settings = following_settings(RestoreRequest(pgdata), StandbyRequest(), "get %f %p")
    with pytest.raises(PostgresError, match="cannot be written: Too many levels of symbolic links"):
        write_recovery_settings(pgdata, settings)
    with pytest.raises(PostgresError, match="cannot be written: Too many levels of symbolic links"):
        replace_settings(pgdata, (), {"hot_standby": "on"})
