"""Takes one base backup of the method ``local`` onto two folders, as a process of its own that a test may kill.

``python -m wal_pipeline_tests.support.local_backup_process CONNINFO PGDATA SYSTEM_IDENTIFIER FOLDER MAX_RATE_KIB``
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import BackupMethod, Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.method import ChosenMethod
from wal_pipeline.commands.backup.options import BackupOptions
from wal_pipeline.commands.backup.take import take_base_backup
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.backup_process import peak_mib

VOLUME_BYTES = 1 << 20


def main() -> None:
    """Take the base backup. The last line of output is the peak resident set in MiB, and the files' bytes."""
    conninfo, pgdata, system_identifier, folder, max_rate_kib = sys.argv[1:]
    result = take_base_backup(
        BackupServer(conninfo),
        None,
        [LocalFolderStore(name, Path(folder, name)) for name in ("r2", "b2")],
        Layout("", "main", int(system_identifier)),
        encoder=StreamEncoder(Codec.ZSTD),
        options=BackupOptions(
            Path(folder, "scratch"),
            volume_size_bytes=VOLUME_BYTES if int(max_rate_kib) else 64 << 20,
            max_rate_kib=int(max_rate_kib) or None,
            pgdata=Path(pgdata),
            workers=2,
        ),
        method=ChosenMethod(BackupMethod.LOCAL),
        clock=lambda: datetime.now(UTC),
    )
    sys.stdout.write(f"{peak_mib()} {result.manifest.size_bytes}\n")


if __name__ == "__main__":
    main()
