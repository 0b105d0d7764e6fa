"""Errors on either side of a worker process: they come out as themselves, and nothing goes on."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wal_pipeline.commands.backup.local.file_worker import PackTask
from wal_pipeline.commands.backup.local.stored_objects import StoredObjects
from wal_pipeline.commands.backup.upload import Sink
from wal_pipeline.commands.copies.stored_bytes import StoredBytes
from wal_pipeline.errors import BaseBackupError
from wal_pipeline_tests.support.worker_backup import WorkerBackup


def test_an_error_of_the_worker_comes_with_its_hint(tmp_path: Path) -> None:
    """A file that is no file any more is named, with the way out."""
    backup = WorkerBackup(tmp_path)
    file = backup.file("base/5/1", 1)
    file.source.unlink()
    os.mkfifo(file.source)
    with pytest.raises(BaseBackupError, match="is no regular file any more") as caught, backup.workers(1) as workers:
        workers.run([PackTask((file,))], stop=lambda: None, tick=lambda: None)
    assert caught.value.hint is not None


def test_an_unexpected_error_says_where_it_arose(tmp_path: Path) -> None:
    """What nobody expected is raised as it is, with the worker's traceback as a note."""
    with pytest.raises(AttributeError) as caught, WorkerBackup(tmp_path).workers(1) as workers:
        workers.run(["no task"], stop=lambda: None, tick=lambda: None)  # type: ignore[list-item]
    assert "resume/copier.py" in "".join(caught.value.__notes__)


@dataclass(frozen=True)
class _Refusing:
    """Objects of which none can be stored."""

    objects: StoredObjects

    def store_encoded(self, name: str, write: Callable[[Sink], None]) -> StoredBytes:
        write(lambda _: None)
        raise BaseBackupError(f"'{name}' cannot be stored")

    def store(self, name: str, chunks: Iterable[bytes]) -> StoredBytes:
        return self.objects.store(name, chunks)

    def __getattr__(self, name: str) -> object:
        return getattr(self.objects, name)


def test_an_error_of_the_base_backup_is_raised_and_ends_the_worker(tmp_path: Path) -> None:
    """The upload's own error comes out, not one of the connection, and the worker is gone."""
    backup = WorkerBackup(tmp_path)
    found = []
    with pytest.raises(BaseBackupError, match="cannot be stored"), backup.workers(1, act=_Refusing) as workers:  # type: ignore[arg-type]
        found.append(workers._processes[0]._spawned.process)
        workers.run([PackTask((backup.file("base/5/1", 400),))], stop=lambda: None, tick=lambda: None)
    assert found[0].poll() is not None


def test_a_worker_that_is_killed_is_named_with_its_code(tmp_path: Path) -> None:
    """The kernel's want of memory is the likely cause, so the hint names the setting."""
    backup = WorkerBackup(tmp_path)
    files = [backup.file(f"base/5/{number}", 400) for number in range(1, 4)]
    with pytest.raises(BaseBackupError, match="ended with exit code -9") as caught, backup.workers(1) as workers:
        workers.run([PackTask((files[0],))], stop=lambda: None, tick=lambda: None)
        workers._processes[0]._spawned.process.kill()
        workers.run([PackTask((file,)) for file in files[1:]], stop=lambda: None, tick=lambda: None)
    assert "WAL_PIPELINE_BASE_BACKUP_WORKERS" in (caught.value.hint or "")


def test_a_worker_that_is_stopped_says_so(tmp_path: Path) -> None:
    """Another worker's error stops it: its own is no fault of the machine."""
    backup = WorkerBackup(tmp_path)
    file = backup.file("base/5/1", 400)
    with pytest.raises(BaseBackupError, match="was stopped"), backup.workers(1) as workers:
        workers._processes[0].stop()
        workers.run([PackTask((file,))], stop=lambda: None, tick=lambda: None)
