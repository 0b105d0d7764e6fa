"""A worker's tasks: packing, and comparing with the parent."""

from pathlib import Path

import pytest

from wal_pipeline.commands.backup.local.file_worker import CompareTask, PackTask
from wal_pipeline.commands.backup.local.parent_files import KnownFile
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.worker_backup import WorkerBackup, set_time

LATER = "20261123T000000Z-000000010000000000000007"


@pytest.mark.parametrize("processes", [0, 1])
def test_what_is_the_parents_is_not_stored_again(tmp_path: Path, processes: int) -> None:
    """A file with the same content is noted as unchanged, one with a newer page or other content is packed."""
    backup = WorkerBackup(tmp_path)
    same, changed, newer = (backup.file(f"base/5/{number}", number) for number in (1, 2, 3))
    backup.run([PackTask((same, changed, newer))], processes)
    known = backup.packed.files
    changed.source.write_bytes(changed.source.read_bytes()[:-1] + b"x")
    set_time(changed.source)
    later = backup.later(LATER)
    files = (
        (same, KnownFile(known["base/5/1"], Lsn(1 << 40))),
        (changed, KnownFile(known["base/5/2"], Lsn(1 << 40))),
        (newer, KnownFile(known["base/5/3"], Lsn(1))),
    )
    later.run([CompareTask(files)], processes)
    assert set(later.packed.unchanged) == {"base/5/1"}
    assert later.contents() == {"base/5/2": changed.source.read_bytes(), "base/5/3": newer.source.read_bytes()}
