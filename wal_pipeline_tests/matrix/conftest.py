"""Chooses the environments of a run, and gives each its locale, its umask and its PostgreSQL."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Buckets, S3Pair
from wal_pipeline_tests.matrix.environments import Environment
from wal_pipeline_tests.matrix.host import Host, NoMountPointError, host

_SOURCES = Path("/usr/share/i18n/locales/de_DE")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--strength``."""
    parser.addoption(
        "--strength",
        type=int,
        default=2,
        choices=range(1, 8),
        help="play environments in which each combination of so many settings occurs: 2 some 15, 3 some 43, 7 all 576",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for ``environment`` each of the selection."""
    if "environment" in metafunc.fixturenames:
        strength = metafunc.config.getoption("--strength", default=2)
        metafunc.parametrize("environment", Environment.selection(strength), ids=str)


@pytest.fixture(scope="session")
def german() -> Iterator[Path]:
    """A folder for LOCPATH with de_DE in UTF-8 and in ISO-8859-1; skips where the system has no sources of it."""
    if not _SOURCES.exists() or shutil.which("localedef") is None:
        pytest.skip("the package 'locales' is not installed: apt-get install -y locales")
    folder = owned_folder("locales")
    folder.chmod(0o755)
    for charset in ("UTF-8", "ISO-8859-1"):
        # localedef warns, and ends with 1 for a warning, where the sources are newer than it is.
        subprocess.run(["localedef", "-c", "-i", "de_DE", "-f", charset, str(folder / f"de_DE.{charset}")], check=False)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def around(environment: Environment, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The umask and the locale of this process, which every program that it starts inherits."""
    if environment.locale == "de_DE":
        monkeypatch.setenv("LOCPATH", str(request.getfixturevalue("german")))
    monkeypatch.setenv("LC_ALL", environment.locale_name)
    monkeypatch.setenv("PGCLIENTENCODING", "UTF8")
    before = os.umask(int(environment.umask, 8))
    yield
    os.umask(before)


@pytest.fixture
def server(
    environment: Environment,
    around: None,
    s3_pair: S3Pair,
    s3_buckets: S3Buckets,
    request: pytest.FixtureRequest,
) -> Iterator[Host]:
    """A host in its environment, with two S3 stores."""
    install: PostgresInstall = request.getfixturevalue(f"postgres{environment.version}")
    authority = owned_folder("authority")
    (authority / "ca.pem").write_bytes(s3_pair.r2.ca_bundle.read_bytes())
    for path in (authority, authority / "ca.pem"):
        path.chmod(0o755)
    settings = {**s3_pair.store_environment(s3_buckets), "WAL_PIPELINE_CA_BUNDLE": str(authority / "ca.pem")}
    try:
        with host(environment, install, settings) as made:
            yield made
    except NoMountPointError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    finally:
        shutil.rmtree(authority)
