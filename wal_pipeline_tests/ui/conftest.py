"""Gives the tests a browser, one cluster with a known history, and a fleet of three."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from testbed.dagster_instance import PROJECT, DagsterInstance
from testbed.postgres_install import PostgresInstall
from testbed.s3_pair import S3Pair
from testbed.tls import TlsFiles
from wal_pipeline_tests.support.ui.browser import CHROMIUM, Screen, open_browser
from wal_pipeline_tests.support.ui.cluster import WatchedCluster
from wal_pipeline_tests.support.ui.history import Fleet, Orders, start_fleet, start_orders, start_shop


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that keeps what the tests saw."""
    parser.addoption("--write-pictures", action="store_true", help="write docs/img and benchmarks/results/ui.json")


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    """A page of Chromium; skips where it is not installed."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install -y chromium")
    with open_browser() as page:
        yield page


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest) -> Path | None:
    """The folder of the documents' pictures, where the run shall write them."""
    return PROJECT / "docs" / "img" if request.config.getoption("--write-pictures", default=False) else None


@pytest.fixture(scope="session")
def orders(
    browser: Page, tmp_path_factory: pytest.TempPathFactory, postgres15: PostgresInstall, s3_pair: S3Pair
) -> Iterator[Orders]:
    """One cluster with a known history in its own Dagster."""
    with start_orders(tmp_path_factory.mktemp("orders"), postgres15, s3_pair) as scene:
        yield scene


@pytest.fixture(scope="session")
def fleet(
    browser: Page,
    tmp_path_factory: pytest.TempPathFactory,
    postgres15: PostgresInstall,
    s3_pair: S3Pair,
    tls_files: TlsFiles,
) -> Iterator[Fleet]:
    """Three clusters in one Dagster."""
    with start_fleet(tmp_path_factory.mktemp("fleet"), postgres15, s3_pair, tls_files) as scene:
        yield scene


@pytest.fixture(scope="session")
def shop(
    browser: Page, tmp_path_factory: pytest.TempPathFactory, postgres15: PostgresInstall, s3_pair: S3Pair
) -> Iterator[tuple[WatchedCluster, DagsterInstance]]:
    """A cluster whose newest commits lie in the open segment alone, and on both stores in pieces."""
    with start_shop(tmp_path_factory.mktemp("shop"), postgres15, s3_pair) as scene:
        yield scene


@pytest.fixture
def ui(browser: Page, orders: Orders, pictures: Path | None) -> Screen:
    """The browser at the UI of the one cluster."""
    return Screen(browser, orders.dagster.url, pictures)


@pytest.fixture
def fleet_ui(browser: Page, fleet: Fleet, pictures: Path | None) -> Screen:
    """The browser at the UI of the fleet."""
    return Screen(browser, fleet.dagster.url, pictures)


@pytest.fixture
def screen(browser: Page, shop: tuple[WatchedCluster, DagsterInstance], pictures: Path | None) -> Screen:
    """The browser at the UI of this cluster."""
    return Screen(browser, shop[1].url, pictures)
