"""The shell line for archive_command, really run by ``sh`` as PostgreSQL runs it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, postgres_user
from wal_pipeline.errors import SpoolError
from wal_pipeline.postgres.archive_command import archives_into, bytes_too_many, durable_archive_command, is_durable

NAME = "000000010000000000000007"
CONTENT = b"wal" * 4096
ODD_NAMES = ["spool", "with space", "quote'd", 'double"quote', "per%cent %f %p", "$HOME `id` \\ *", "-dash"]


@pytest.fixture(params=ODD_NAMES)
def odd_spool(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A spool whose name is hard to quote."""
    spool = tmp_path / str(request.param)
    spool.mkdir()
    return spool


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """An empty spool, with a space in its name."""
    folder = tmp_path / "wal spool"
    folder.mkdir()
    return folder


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """A file in the data directory's pg_wal."""
    path = tmp_path / "pgdata" / "pg_wal" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    path.chmod(0o600)
    return path


def as_postgres_runs(command: str) -> str:
    """Replace %f, %p and %% as PostgreSQL does (replace_percent_placeholders)."""
    values = {"%%": "%", "%f": NAME, "%p": f"pg_wal/{NAME}"}
    out, rest = "", command
    while rest:
        pair = rest[:2]
        out, rest = (out + values[pair], rest[2:]) if pair in values else (out + rest[0], rest[1:])
    return out


def archive(spool: Path, segment: Path, **options: bool) -> "subprocess.CompletedProcess[str]":
    """Run the line with ``sh -c`` in the data directory, as the archiver does, with its umask."""
    line = as_postgres_runs(durable_archive_command(spool, **options))
    return subprocess.run(
        ["sh", "-c", line], cwd=segment.parents[1], capture_output=True, text=True, check=False, timeout=30, umask=0o077
    )


def test_any_spool_name(odd_spool: Path, segment: Path) -> None:
    """The file comes under its name with its content, whatever the spool's path is made of."""
    assert archive(odd_spool, segment).returncode == 0
    assert [path.name for path in odd_spool.iterdir()] == [NAME]
    assert (odd_spool / NAME).read_bytes() == CONTENT


def test_same_content_again(spool: Path, segment: Path) -> None:
    """A retry after a crash, before PostgreSQL noted the success, succeeds and leaves the file alone."""
    archive(spool, segment)
    before = (spool / NAME).stat()
    assert archive(spool, segment).returncode == 0
    after = (spool / NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_content_is_refused(spool: Path, segment: Path) -> None:
    """A name that is taken by other content is not overwritten, and PostgreSQL's log says why."""
    (spool / NAME).write_bytes(CONTENT[:-1])
    finished = archive(spool, segment)
    assert (finished.returncode, finished.stderr.splitlines()[-1]) == (
        1,
        f"wal-pipeline: {NAME} is in the spool with other content",
    )
    assert (spool / NAME).read_bytes() == CONTENT[:-1]


def test_killed_midway_then_again(spool: Path, segment: Path) -> None:
    """Killed within the copy: nothing under the final name; the next try succeeds and removes what was left."""
    segment.unlink()
    os.mkfifo(segment)
    line = as_postgres_runs(durable_archive_command(spool))
    process = subprocess.Popen(["sh", "-c", line], cwd=segment.parents[1], start_new_session=True)
    with segment.open("wb") as half:
        half.write(CONTENT[:1000])
        half.flush()
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size for path in spool.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    assert [path.name.startswith(f".{NAME}.") for path in spool.iterdir()] == [True]
    segment.unlink()
    segment.write_bytes(CONTENT)
    assert archive(spool, segment).returncode == 0
    assert [(path.name, path.read_bytes()) for path in spool.iterdir()] == [(NAME, CONTENT)]


@pytest.mark.parametrize("missing", ["cp", "sync", "mv"])
def test_each_step_that_fails(missing: str, spool: Path, segment: Path, tmp_path: Path) -> None:
    """A step that fails ends in exit 1, never above 125, with no file that looks whole and no leftovers."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in {"cp", "sync", "mv", "rm", "cmp"} - {missing}:
        (tools / name).symlink_to(str(shutil.which(name)))
    line = as_postgres_runs(durable_archive_command(spool))
    command = ["/bin/sh", "-c", line]
    finished = subprocess.run(
        command, cwd=segment.parents[1], env={"PATH": str(tools)}, capture_output=True, check=False, timeout=30
    )
    assert finished.returncode == 1
    assert list(spool.iterdir()) == []


def test_without_a_source(spool: Path, segment: Path) -> None:
    """A source that cannot be read is a failure with exit 1, and leaves nothing."""
    segment.unlink()
    assert archive(spool, segment).returncode == 1
    assert list(spool.iterdir()) == []


def test_without_a_spool(spool: Path, segment: Path) -> None:
    """A spool that is gone is a failure with exit 1."""
    spool.rmdir()
    assert archive(spool, segment).returncode == 1


def test_synced_before_and_after_the_rename(spool: Path, segment: Path, tmp_path: Path) -> None:
    """The order is copy, sync of the file, rename, sync of the folder."""
    tools, trace = tmp_path / "bin", tmp_path / "trace"
    tools.mkdir()
    for name in ("cp", "sync", "mv"):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\necho "{name} ${{1##*/}}" >> "{trace}"\nexec {shutil.which(name)} "$@"\n')
        tool.chmod(0o755)
    line = as_postgres_runs(durable_archive_command(spool))
    path = f"{tools}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", line], cwd=segment.parents[1], env={"PATH": path}, check=True, timeout=30)
    steps = [step.split(" ", 1) for step in trace.read_text().splitlines()]
    temporary = steps[1][1]
    assert temporary.startswith(f".{NAME}.")
    assert steps == [["cp", NAME], ["sync", temporary], ["mv", temporary], ["sync", "wal spool"]]


@pytest.mark.parametrize(("group_readable", "mode"), [(False, 0o600), (True, 0o640)])
def test_rights(group_readable: bool, mode: int, spool: Path, segment: Path) -> None:
    """The file is for PostgreSQL's user alone, and for the folder's group where asked."""
    assert archive(spool, segment, group_readable=group_readable).returncode == 0
    assert (spool / NAME).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("path", ["relative", "/new\nline", "/nul\0"])
def test_refused_paths(path: str) -> None:
    """A path that cannot stand in a server setting is refused."""
    with pytest.raises(SpoolError) as caught:
        durable_archive_command(Path(path))
    assert caught.value.message == (
        f"spool '{path!a}' cannot stand in archive_command: expected an absolute path without control characters"
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("test ! -f /srv/wal/%f && cp %p /srv/wal/%f", True),
        ("cp %p '/srv/wal/%f'", True),
        ('cp %p "/srv/wal"', True),
        ("cp %p /srv/wal2/%f", False),
        ("cp %p /mnt/srv/wal/%f", False),
        ("pgbackrest --stanza=main archive-push %p", False),
    ],
)
def test_archives_into(command: str, expected: bool) -> None:
    """A command into our spool is recognized, and one into a folder with a similar name is not."""
    assert archives_into(command, Path("/srv/wal")) is expected


def test_is_durable(odd_spool: Path) -> None:
    """Our own lines are known again, and belong to one spool."""
    line = durable_archive_command(odd_spool, group_readable=True)
    assert is_durable(line, odd_spool)
    assert archives_into(line, odd_spool)
    assert not is_durable(line, odd_spool.parent)
    assert not is_durable("cp %p %f", odd_spool)


@pytest.mark.integration
@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_command_is_as_long_as_postgresql_takes(
    postgres_version: PostgresInstall, make_cluster: Callable[..., PostgresCluster], postgres_folder: Path, excess: int
) -> None:
    """A backup history file has the longest name: with one byte more PostgreSQL 15 archives none, 18 still does."""
    room = -len(os.fsencode(postgres_folder)) - 3 + 1023 - _expanded(durable_archive_command(Path("/"))) + 1
    first = (room + excess) // 3
    spool = postgres_folder / ("a" * first) / ("b" * first) / ("c" * (room + excess - 2 * first))
    subprocess.run(postgres_user().wrap(["mkdir", "-p", str(spool)]), check=True)
    command = durable_archive_command(spool)
    assert bytes_too_many(command, 15) == excess
    cluster = make_cluster(postgres_version, settings={"archive_mode": "on", "archive_command": command}).start()
    begin, end = (
        ("pg_start_backup('x', true)", "pg_stop_backup()")
        if postgres_version.version < 15
        else ("pg_backup_start('x', true)", "pg_backup_stop(false)")
    )
    cluster.psql(f"SELECT {begin};\nSELECT {end};")
    is_fine = excess == 0 or postgres_version.version >= 16

    def settled() -> bool:
        archived, failed = cluster.psql("SELECT archived_count, failed_count FROM pg_stat_archiver").split("|")
        return bool(list(spool.glob("*.backup"))) or (int(failed) > 0 and not is_fine and bool(archived))

    cluster.process.wait_until(settled, timeout_seconds=60)
    assert bool(list(spool.glob("*.backup"))) == is_fine


def _expanded(command: str) -> int:
    return bytes_too_many(command + "x" * 5000, 15) + 1023 - 5000
