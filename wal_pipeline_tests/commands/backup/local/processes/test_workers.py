"""Workers of a base backup: they do the same in this process and in others."""

from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from wal_pipeline.archive.format.base_backup.file_index import IndexedFile
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.file_worker import PackTask
from wal_pipeline.commands.backup.local.processes.worker_process import WorkerProcess
from wal_pipeline.commands.backup.local.resume.units import BundleUnit, LargeUnit, StoredPart
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.cut_backups import PAGE
from wal_pipeline_tests.support.worker_backup import STARTED, WorkerBackup

LATER = "20261123T000000Z-000000010000000000000007"
MIB = 1 << 20


def _without_volumes(files: dict[str, IndexedFile]) -> dict[str, IndexedFile]:
    return {
        path: replace(file, parts=tuple(replace(part, volume=0) for part in file.parts)) for path, file in files.items()
    }


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "age"])
def test_processes_pack_what_threads_pack(tmp_path: Path, encrypted: bool) -> None:
    """Small files, files of a volume, and one of several volumes: the same content, index and number of bytes read."""
    identity = pyrage.x25519.Identity.generate()
    recipients = [str(identity.to_public())] if encrypted else []
    encoder = StreamEncoder(Codec.ZSTD, recipients=recipients)
    found = []
    for processes in (0, 2):
        backup = WorkerBackup(tmp_path / str(processes), encoder=encoder, identities=[identity] if encrypted else [])
        bundles = [
            tuple(backup.file(f"base/5/{10 + number}", 1 + number) for number in range(80)),
            (backup.file("base/5/2", 300),),
            tuple(backup.file(f"base/6/{number}", 120) for number in range(2)),
        ]
        backup.run([PackTask(bundle) for bundle in bundles], processes)
        contents = backup.contents()
        assert contents == {file.path: file.source.read_bytes() for bundle in bundles for file in bundle}
        found.append((_without_volumes(backup.packed.files), contents, sum(backup.read)))
    assert found[0] == found[1]


def test_a_process_tells_of_damaged_pages_and_odd_ends(tmp_path: Path) -> None:
    """What the checksums say comes back with each file."""
    backup = WorkerBackup(tmp_path, started=replace(STARTED, has_checksums=True))
    damaged = backup.file("base/5/1", 3)
    newer = backup.file("base/5/2", 3, Lsn.parse("0/6000000"))
    with newer.source.open("ab") as file:
        file.write(b"end")
    backup.run([PackTask((damaged, newer))], 1)
    [pages] = backup.packed.damaged_pages(Lsn.parse("0/7000000"))
    assert (pages.file, pages.blocks) == ("base/5/1", (0, 1, 2))
    assert [one.file for one in backup.packed.damaged_pages(Lsn.parse("0/5500000"))] == ["base/5/1", "base/5/2"]
    assert backup.packed.unchecked == ["base/5/2"]


def test_a_process_copies_what_a_base_backup_that_was_cut_has(tmp_path: Path) -> None:
    """A bundle and a part of a large file are copied on the store; the part that is not stored is packed."""
    backup = WorkerBackup(tmp_path)
    bundle = tuple(backup.file(f"base/5/{10 + number}", 8) for number in range(3))
    large = backup.file("base/5/2", 200)
    backup.run([PackTask(bundle), PackTask((large,))], 1)
    volumes, known = backup.packed.volumes(), backup.packed.files
    first = known[large.path].parts[0]
    stored = StoredPart(
        backup.take, STARTED.start_lsn, volumes[first.volume].item, first, large.size_bytes, large.modified_ns
    )
    small = tuple(known[file.path] for file in bundle)
    later = backup.later(LATER)
    item = volumes[small[0].parts[0].volume].item
    later.run([BundleUnit(backup.take, item, bundle, small), LargeUnit(large, (stored,))], 2)
    assert later.contents() == {file.path: file.source.read_bytes() for file in (*bundle, large)}
    hashes = {volume.item.sha256 for volume in volumes}
    assert sum(volume.item.sha256 in hashes for volume in later.packed.volumes()) >= 2


def test_a_paced_process_asks_before_it_goes_on(tmp_path: Path) -> None:
    """Where the rate is limited each call is answered, so that the meter can keep the worker waiting."""
    backup = WorkerBackup(tmp_path, is_paced=True)
    backup.run([PackTask((backup.file("base/5/2", 600),))], 1)
    assert sum(backup.read) == 600 * PAGE
    assert max(backup.read) <= 5 * MIB


def test_threads_do_what_processes_cannot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the system lets no process start, the base backup is taken all the same, and says so."""
    backup = WorkerBackup(tmp_path)
    file = backup.file("base/5/1", 3)

    def start() -> WorkerProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with backup.workers(2, start=start) as workers:
        workers.run([PackTask((file,))], stop=lambda: None, tick=lambda: None)
    assert backup.contents() == {"base/5/1": file.source.read_bytes()}
    assert "0 of 2 worker processes start: Resource temporarily unavailable" in caplog.text
