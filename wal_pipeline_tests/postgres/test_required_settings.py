"""The settings that recovery needs are read from the control file, and what is configured by the server's program."""

from collections.abc import Callable

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.postgres.required_settings import (
    REQUIRED_SETTINGS,
    configured_values,
    settings_of_original,
    too_low,
)

pytestmark = pytest.mark.integration


def test_the_five_settings_of_the_original_and_of_the_configuration(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster]
) -> None:
    """The original had one on its command line that is higher than its configuration says."""
    cluster = make_cluster(postgres_version, settings={"max_connections": "77", "max_prepared_transactions": "3"})
    with cluster:
        pass
    binaries = Binaries(postgres_version.bin_folder, postgres_version.version)
    needed = settings_of_original(cluster.pgdata, binaries)
    assert set(needed) == set(REQUIRED_SETTINGS)
    user = ServerUser(postgres_user().uid, postgres_user().gid)
    found = configured_values(
        REQUIRED_SETTINGS, cluster.pgdata, binaries, user=user, settings={"max_connections": "40"}, environment={}
    )
    assert (found["max_connections"], found["max_prepared_transactions"]) == ("40", "0")
    assert too_low(needed, found) == {"max_connections": 77, "max_prepared_transactions": 3}


def test_a_configuration_that_cannot_be_read_is_told_before_a_start(
    postgres18: PostgresInstall, make_cluster: Callable[..., PostgresCluster]
) -> None:
    """The server's own words name the file and the line."""
    cluster = make_cluster(postgres18)
    with (cluster.pgdata / "postgresql.conf").open("a") as file:
        file.write("include = '/nowhere/else.conf'\n")
    binaries, user = Binaries(postgres18.bin_folder, 18), ServerUser(postgres_user().uid, postgres_user().gid)
    with pytest.raises(PostgresError) as caught:
        configured_values(["port"], cluster.pgdata, binaries, user=user, settings={}, environment={})
    assert f"the server in '{cluster.pgdata}' cannot read its configuration: " in caught.value.message
    assert "/nowhere/else.conf" in caught.value.message
