"""Makes a pg_control of PostgreSQL 15 for pgBackRest, because Debian's release knows no later PostgreSQL."""

import shutil
from pathlib import Path

from benchmarks.ours import BenchError
from testbed.postgres import PostgresCluster
from testbed.postgres_install import DEBIAN_15_HINT, PostgresInstall, postgres_15


def require_15() -> PostgresInstall:
    """Return PostgreSQL 15. Raises: BenchError where it is not installed."""
    install = postgres_15()
    if install is None:
        raise BenchError(f"PostgreSQL 15 is not installed: {DEBIAN_15_HINT}")
    return install


def control_file_15(home: Path) -> Path:
    """Return a control file, made once. pgBackRest reads the cluster's version and identifier from it."""
    kept = home / "pg_control.15"
    if not kept.exists():
        cluster = PostgresCluster(require_15()).initdb()
        try:
            shutil.copyfile(cluster.pgdata / "global" / "pg_control", kept)
        finally:
            cluster.remove()
    return kept
