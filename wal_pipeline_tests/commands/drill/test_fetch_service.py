"""A drill's server gets its WAL from a script without credentials, with the exit codes that PostgreSQL acts on."""

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import cast

import pytest

from wal_pipeline.commands.archive_get.restore_command import shell_line
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, WalSource
from wal_pipeline.commands.drill.fetch_service import FetchService
from wal_pipeline.commands.drill.scratch_server import ClusterChecks, plain_environment
from wal_pipeline.errors import DamagedCopyError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.wal.names import WalFileName, segment_name

SIZE = 1 << 20
HELD = [segment_name(1, number, SIZE) for number in (5, 6, 7)]
DAMAGED = segment_name(1, 9, SIZE)


class Source:
    """Three segments and a damaged one; it remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fetch(self, name: WalFileName) -> FetchedWal | None:
        """Return a segment, None where there is none."""
        self.asked.append(name.name)
        if name == DAMAGED:
            raise DamagedCopyError("r2", f"object '{name.name}' cannot be used")
        return FetchedWal(name, name.name.encode(), "r2", "key") if name in HELD else None


@pytest.fixture
def source() -> Source:
    """What is fetched from."""
    return Source()


@pytest.fixture
def service(tmp_path: Path, source: Source) -> FetchService:
    """A service that is not open yet."""
    me = ServerUser(os.getuid(), os.getgid())
    return FetchService(tmp_path / "fetch", cast(WalSource, source), me, SIZE)


def restore(service: FetchService, name: str, destination: Path) -> int:
    """Run the restore command as PostgreSQL does, and return its exit code."""
    line = shell_line(service.program, None).replace("%f", name).replace("%p", str(destination))
    return subprocess.run(["/bin/sh", "-c", line], check=False, timeout=30).returncode


def test_a_segment_is_delivered(service: FetchService, tmp_path: Path) -> None:
    """Exit code 0, and the file is whole."""
    with service:
        for name in HELD:
            assert restore(service, name.name, tmp_path / "got") == 0
            assert (tmp_path / "got").read_text() == name.name


def test_each_segment_is_fetched_once(service: FetchService, source: Source, tmp_path: Path) -> None:
    """What was fetched ahead is used, and not fetched again."""
    with service:
        for name in HELD:
            restore(service, name.name, tmp_path / "got")
    assert sorted(source.asked) == sorted(set(source.asked))
    assert len(source.asked) > len(HELD)


def test_absence_is_exit_code_1(service: FetchService, tmp_path: Path) -> None:
    """Only what the store answered itself counts as the end of the archive."""
    with service:
        assert restore(service, "00000002.history", tmp_path / "got") == 1
    assert service.faults == []


def test_a_damaged_copy_is_fatal_and_told(service: FetchService, tmp_path: Path) -> None:
    """The server must stop, and the drill's result names the object."""
    with service:
        assert restore(service, DAMAGED.name, tmp_path / "got") == 200
    assert service.faults == [f"r2: object '{DAMAGED.name}' cannot be used"]
    assert not (tmp_path / "got").exists()


def test_a_name_that_is_not_postgresqls_is_refused(service: FetchService, tmp_path: Path) -> None:
    """Nothing but files of the WAL archive can be asked for."""
    with service:
        assert restore(service, "passwd", tmp_path / "got") == 200
    assert service.faults == ["'passwd' is not the name of a file of the WAL archive"]


def test_nobody_waits_for_a_drill_that_is_gone(service: FetchService, tmp_path: Path) -> None:
    """When the service ends, a restore command that waits fails; it is neither delivered nor the archive's end."""
    script, folder = Path(service.program[1]), Path(service.program[-1])
    with service:
        text = script.read_text()
    assert not folder.exists()
    folder.mkdir()
    script.write_text(text)  # as if the command had begun just before the end
    threading.Timer(0.3, shutil.rmtree, [folder]).start()
    assert restore(service, HELD[0].name, tmp_path / "got") == 200


def test_postgresqls_programs_get_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a restored server nor the user's SQL sees the stores' keys."""
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "very secret")
    monkeypatch.setenv("PGPASSWORD", "secret too")
    assert not {"R2_SECRET_ACCESS_KEY", "PGPASSWORD"} & set(plain_environment())
    (tmp_path / "psql").write_text("#!/bin/sh\nenv >&2\nexit 1\n")
    (tmp_path / "psql").chmod(0o755)
    checks = ClusterChecks(
        Binaries(tmp_path, 18), tmp_path, ServerUser(os.getuid(), os.getgid()), role="postgres", database="postgres"
    )
    assert "secret" not in checks.answers().output
