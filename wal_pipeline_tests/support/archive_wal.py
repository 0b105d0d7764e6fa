"""Archives real WAL of a PostgreSQL server by a plain archive_command."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.wal.names import parse_file_name


@dataclass(frozen=True, slots=True)
class RealWal:
    """The files of one cluster's archive: segments of 1 MiB, a backup history file and a timeline history file."""

    folder: Path
    system_identifier: int
    major: int

    def fill(self, spool: Path) -> dict[str, bytes]:
        """Put every file into a spool and return their content by name."""
        made = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir()) if parse_file_name(path.name)}
        for name, content in made.items():
            (spool / name).write_bytes(content)
        return made


@contextmanager
def real_wal(install: PostgresInstall) -> Iterator[RealWal]:
    """Archive a server's WAL: a table, a base backup's history file, some thousand rows, and a promotion."""
    folder = owned_folder("real-wal")
    settings = {"archive_mode": "on", "archive_command": f"test ! -f {folder}/%f && cp %p {folder}/%f"}
    cluster = PostgresCluster(install, settings=settings)
    try:
        cluster.initdb(wal_segment_size_mb=1).start()
        cluster.psql("SELECT pg_backup_start('test', true) \\g /dev/null\nSELECT pg_backup_stop(false) \\g /dev/null")
        for batch in range(4):
            cluster.bulk_load(1, table=f"t{batch}")
        cluster.stop()
        (cluster.pgdata / "standby.signal").touch()
        cluster.start()
        cluster.promote()
        cluster.psql("CREATE TABLE after_promotion (i int)")
        last = cluster.switch_wal()
        cluster.process.wait_until((folder / last).exists)
        cluster.stop()
        yield RealWal(folder, int(cluster.system_identifier), install.version)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)
