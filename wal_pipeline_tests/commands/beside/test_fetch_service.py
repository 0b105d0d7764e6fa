"""A server gets its WAL from a script without credentials, with the exit codes that PostgreSQL acts on."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, WalSource
from wal_pipeline.commands.beside.fetch_service import FetchService
from wal_pipeline.errors import DamagedCopyError
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.wal.names import WalFileName, segment_name
from wal_pipeline_tests.support.nobody import NOBODY, nobodys_folder

SIZE = 1 << 20
HELD = [segment_name(1, number, SIZE) for number in range(5, 50)]
DAMAGED = segment_name(1, 90, SIZE)


def content(name: WalFileName) -> bytes:
    """Return a segment's bytes."""
    return name.name.encode().ljust(SIZE)


class Source:
    """Segments and a damaged one; it remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.on_fetch: Callable[[], object] = lambda: None

    def fetch(self, name: WalFileName) -> FetchedWal | None:
        """Return a segment, None where there is none."""
        self.asked.append(name.name)
        self.on_fetch()
        if name == DAMAGED:
            raise DamagedCopyError("r2", f"object '{name.name}' cannot be used")
        return FetchedWal(name, content(name), "r2", "key") if name in HELD else None


@pytest.fixture
def source() -> Source:
    """What is fetched from."""
    return Source()


@pytest.fixture
def service(tmp_path: Path, source: Source) -> FetchService:
    """A service that is not open yet."""
    me = ServerUser(os.getuid(), os.getgid())
    return FetchService(tmp_path / "fetch", RecoveryWal(cast(WalSource, source)), me)


def restore(service: FetchService, name: str, destination: Path, user: ServerUser | None = None) -> int:
    """Run the restore command as PostgreSQL does, as our user or another one, and return its exit code."""
    options = {} if user is None else user.popen_options()
    line = service.command().line.replace("%f", name).replace("%p", str(destination))
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", line], check=False, timeout=30, env=environment, **options)  # type: ignore[call-overload]
    return int(done.returncode)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so. Raises: AssertionError."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_segment_is_delivered(service: FetchService, tmp_path: Path) -> None:
    """Exit code 0, and the file is whole."""
    with service:
        for name in HELD[:3]:
            assert restore(service, name.name, tmp_path / "got") == 0
            assert (tmp_path / "got").read_bytes() == content(name)


def test_each_segment_is_fetched_once(service: FetchService, source: Source, tmp_path: Path) -> None:
    """What was fetched ahead is used, and not fetched again."""
    with service:
        for name in HELD[:3]:
            restore(service, name.name, tmp_path / "got")
        wait_until(lambda: len(source.asked) > len(HELD[:3]))
    assert sorted(source.asked) == sorted(set(source.asked))
    assert len(source.asked) > len(HELD[:3])


def test_a_file_that_was_fetched_ahead_is_moved_without_a_question(
    service: FetchService, source: Source, tmp_path: Path
) -> None:
    """As in a restore: it lies in the prefetch folder when the server asks for it."""
    with service:
        restore(service, HELD[0].name, tmp_path / "got")
        wait_until((tmp_path / "fetch" / HELD[1].name).exists)
        Path(tmp_path / "fetch.sh").unlink()
        assert restore(service, HELD[1].name, tmp_path / "got") == 0
    assert (tmp_path / "got").read_bytes() == content(HELD[1])


def test_absence_is_exit_code_1(service: FetchService, tmp_path: Path) -> None:
    """Only what the store answered itself counts as the end of the archive."""
    with service:
        assert restore(service, "00000002.history", tmp_path / "got") == 1
    assert service.faults == []


def test_a_damaged_copy_is_fatal_and_told(service: FetchService, tmp_path: Path) -> None:
    """The server must stop, and the result names the object."""
    with service:
        assert restore(service, DAMAGED.name, tmp_path / "got") == 200
    assert service.faults == [f"r2: object '{DAMAGED.name}' cannot be used"]
    assert not (tmp_path / "got").exists()


def test_a_name_that_is_not_postgresqls_is_refused(service: FetchService, tmp_path: Path) -> None:
    """Nothing but files of the WAL archive can be asked for."""
    with service:
        assert restore(service, "passwd", tmp_path / "got") == 200
    assert service.faults == ["'passwd' is not the name of a file of the WAL archive"]


def test_nobody_waits_for_a_service_that_is_gone(service: FetchService, tmp_path: Path) -> None:
    """When the service ends, a restore command that waits fails; it is neither delivered nor the archive's end."""
    script, folder = tmp_path / "fetch.sh", tmp_path / "fetch"
    with service:
        text = script.read_text()
    assert not folder.exists()
    folder.mkdir()
    script.write_text(text)  # as if the command had begun just before the end
    threading.Timer(0.3, shutil.rmtree, [folder]).start()
    assert restore(service, HELD[0].name, tmp_path / "got") == 200


def test_nobody_waits_where_no_answer_can_be_written(service: FetchService, source: Source, tmp_path: Path) -> None:
    """The service ends with the reason, the folder is removed, and the restore command that waits fails."""
    with service:
        source.on_fetch = lambda: (tmp_path / "fetch").rename(tmp_path / "elsewhere")
        assert restore(service, HELD[0].name, tmp_path / "got") == 200
        wait_until(lambda: len(service.faults) > 0)
    assert "No such file or directory" in service.faults[0]


def test_an_answer_to_an_earlier_call_is_not_read(service: FetchService, source: Source, tmp_path: Path) -> None:
    """A restore command that was killed leaves its answer: that the file was absent then says nothing of now."""
    with service:
        (tmp_path / "fetch" / f".{HELD[0].name}.1-1.answered").write_text("absent\n\n")
        assert restore(service, HELD[0].name, tmp_path / "got") == 0
    assert HELD[0].name in source.asked


def test_a_server_of_another_user_is_served(source: Source) -> None:
    """It needs no program of ours, and gets each file as its own: one asked for, and one fetched ahead."""
    with nobodys_folder("out") as out:
        user = ServerUser(NOBODY, NOBODY)
        with FetchService(out.parent / "fetch", RecoveryWal(cast(WalSource, source)), user) as service:
            for name, after in pairwise(HELD[:3]):
                assert restore(service, name.name, out / name.name, user) == 0
                assert (out / name.name).read_bytes() == content(name)
                assert (out / name.name).stat().st_uid == NOBODY
                wait_until((out.parent / "fetch" / after.name).exists)
        assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
