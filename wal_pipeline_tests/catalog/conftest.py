"""The databases that a catalog can be kept in: each test of a catalog runs on both."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline_tests.support.clock import TestClock


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a catalog's database; PostgreSQL's is shared by all tests, which differ in the cluster's name."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/catalog.sqlite"
    server: PostgresCluster = request.getfixturevalue("shared_cluster18")
    address = server.pg_environment
    return f"postgresql://{address['PGUSER']}@{address['PGHOST']}:{address['PGPORT']}/{address['PGDATABASE']}"


@pytest.fixture
def cluster() -> str:
    return f"cluster-{uuid.uuid4().hex}"


@pytest.fixture
def catalog(catalog_url: str, cluster: str, clock: TestClock) -> Iterator[Catalog]:
    opened = open_catalog(catalog_url, cluster, clock=clock)
    yield opened
    opened.close()
