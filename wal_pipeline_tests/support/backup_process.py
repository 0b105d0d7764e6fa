"""Takes one base backup onto two folders, as a process of its own, and prints its peak memory.

``python -m wal_pipeline_tests.support.backup_process CONNINFO PG_BASEBACKUP SYSTEM_IDENTIFIER FOLDER CODEC RATE``
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.options import BackupOptions
from wal_pipeline.commands.backup.part_uploader import UploadLimits
from wal_pipeline.commands.backup.take import take_base_backup
from wal_pipeline.postgres.backup_server import BackupServer
from wal_pipeline.stores.local.store import LocalFolderStore


def main() -> None:
    """Take the base backup. The last line of output is the peak resident set in MiB, and the tar's bytes."""
    conninfo, program, system_identifier, folder, codec, rate = sys.argv[1:]
    stores = [LocalFolderStore(name, Path(folder, name)) for name in ("r2", "b2")]
    slow = int(rate) > 0
    result = take_base_backup(
        BackupServer(conninfo),
        Path(program),
        stores,
        Layout("", "main", int(system_identifier)),
        encoder=StreamEncoder(Codec(codec)),
        options=BackupOptions(
            Path(folder, "scratch"),
            volume_size_bytes=(12 if slow else 128) << 20,
            max_rate_kib=int(rate) if slow else None,
            limits=UploadLimits(part_size_bytes=5 << 20) if slow else UploadLimits(),
        ),
        clock=lambda: datetime.now(UTC),
    )
    sys.stdout.write(f"{peak_mib()} {result.manifest.size_bytes}\n")


def peak_mib() -> int:
    """The peak of this program's resident set. getrusage's ``ru_maxrss`` also counts the parent's before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main()
