"""The commits in real segments, compared with those that the servers themselves report."""

import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import owned_folder, postgres_15, postgres_18
from wal_pipeline.errors import InvalidWalFileError, PostgresError
from wal_pipeline.postgres.binaries import find_binaries
from wal_pipeline.postgres.waldump import Commit, CommitSpan, PgWaldump
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment
from wal_pipeline.wal.pages import record_end
from wal_pipeline_tests.support.commit_archive import (
    MIB,
    READER,
    Archive,
    archive_settings,
    last_commit_and_switch,
    make_archive,
)

pytestmark = [pytest.mark.integration, pytest.mark.each_version]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((version, size), id=f"postgres{version}-{size}MB", marks=marks)
        for version, marks in ((18, ()), (15, pytest.mark.postgres15))
        for size in (1, 16, 64)
    ],
)
def archive(request: pytest.FixtureRequest) -> Iterator[Archive]:
    """An archive written by each version, with each segment size."""
    version, size = request.param
    yield from _archive(version, size)


@pytest.fixture(
    scope="module",
    params=[pytest.param(18, id="postgres18"), pytest.param(15, id="postgres15", marks=pytest.mark.postgres15)],
)
def small(request: pytest.FixtureRequest) -> Iterator[Archive]:
    """An archive of 1 MiB segments written by each version."""
    yield from _archive(request.param, 1)


def _archive(version: int, size: int) -> Iterator[Archive]:
    install = postgres_18() if version == 18 else postgres_15()
    if install is None:
        pytest.skip(f"PostgreSQL {version} is not installed")
    made = make_archive(install, size)
    yield made
    made.cluster.remove()
    shutil.rmtree(made.folder)


def test_the_last_commit_is_the_servers(archive: Archive) -> None:
    """The last commit before a switch has the id and the very time that the server gave it."""
    span = archive.inspect(archive.normal.segment)
    assert span is not None
    assert span.last is not None
    assert (span.last.xid, span.last.at) == (archive.normal.xid, archive.normal.at)
    assert span.first is not None
    assert span.first.lsn < span.last.lsn
    assert span.latest_at is not None
    assert span.latest_at >= span.last.at
    assert span.stopped_at is None


def test_commit_prepared_counts_under_the_prepared_id(archive: Archive) -> None:
    """A COMMIT PREPARED is a commit, at its own time and with the id of the prepared transaction; PREPARE is none."""
    span = archive.inspect(archive.prepared.segment)
    assert span is not None
    assert span.last is not None
    assert (span.last.xid, span.last.at) == (archive.prepared.xid, archive.prepared.at)
    assert (span.count, span.first, span.latest_at) == (1, span.last, span.last.at)


def test_every_commit_is_in_one_segment(archive: Archive) -> None:
    """Over the archive, segment by segment, each commit that a reading in one go sees is counted once."""
    segments = archive.segments()
    program = archive.cluster.install.program("pg_waldump")
    whole = subprocess.run(
        [program, "-r", "Transaction", "-p", archive.folder, segments[0].name, segments[-1].name],
        capture_output=True,
        text=True,
        check=False,
    )
    spans = [archive.inspect(path.name, previous) for previous, path in zip([None, *segments], segments, strict=False)]
    assert sum(span.count for span in spans if span is not None) == whole.stdout.count("desc: COMMIT")
    assert None not in spans


def test_the_zone_and_language_of_the_process_do_not_matter(small: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are right in any time zone."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    monkeypatch.setenv("PGTZ", "Asia/Kolkata")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    span = small.inspect(small.normal.segment)
    assert span is not None
    assert span.last is not None
    assert span.last.at == small.normal.at


def test_a_commit_across_the_boundary(small: Archive) -> None:
    """A commit record that crosses a boundary belongs to the segment in which it ends, and is not hidden."""
    assert small.crossing is not None
    name = small.crossing.segment
    assert small.inspect(name) == CommitSpan(None, None, 0, None, unseen_start=True)
    previous = small.before(name)
    span = small.inspect(name, previous)
    assert span is not None
    start = small.header(small.folder / name).page_address
    assert span.last is not None
    assert (span.last.xid, span.last.at) == (small.crossing.xid, small.crossing.at)
    assert span.last.lsn < start
    assert span == CommitSpan(span.last, span.last, 1, span.last.at)
    earlier = small.inspect(previous.name)
    assert earlier is not None
    assert earlier.last is None or earlier.last.lsn < span.last.lsn


def test_the_segment_before_may_go_meanwhile(small: Archive, tmp_path: Path) -> None:
    """The segment before is released from the spool while pg_waldump starts: it is read all the same."""
    assert small.crossing is not None
    name = small.crossing.segment
    for path in (small.folder / name, small.before(name)):
        shutil.copy(path, tmp_path)
    before = tmp_path / small.before(name).name
    real = find_binaries(small.major, exactly=True).program("pg_waldump")
    script = f'case " $* " in *" -p "*) rm -f "{before}" ;; esac\nexec "{real}" "$@"'
    reader = fake_program(tmp_path / "bin", small.major, script, timeout_seconds=60)
    span = reader.read(tmp_path / name, small.major, MIB, previous=before)
    assert not before.exists()
    assert span == small.inspect(name, small.before(name))
    assert not span.unseen_start


def test_a_segment_before_that_is_gone_is_not_waited_for(small: Archive, tmp_path: Path) -> None:
    """Where it went before it could be opened, it is said that the start was not seen."""
    assert small.crossing is not None
    name = small.crossing.segment
    reader = PgWaldump()
    span = reader.read(small.folder / name, small.major, MIB, previous=tmp_path / small.before(name).name)
    assert span == small.inspect(name)


def test_segments_inside_one_record(small: Archive) -> None:
    """Segments that one long record fills hold no commit, which is known and no error."""
    inside = [path for path in small.segments() if small.header(path).remaining_bytes > MIB]
    assert len(inside) >= 2
    for path in inside:
        assert small.inspect(path.name) == CommitSpan(None, None, 0, None)


def test_a_record_that_begins_before_the_segment_before(small: Archive) -> None:
    """Where a record of more than two segments ends, the one before does not tell what it is: that is said."""
    inside = [path for path in small.segments() if small.header(path).remaining_bytes > MIB]
    ending = small.segments()[small.segments().index(inside[-1]) + 1]
    assert small.inspect(ending.name, inside[-1]) == CommitSpan(None, None, 0, None, unseen_start=True)


def test_a_long_record_that_begins_in_the_segment_before(small: Archive) -> None:
    """A record that begins long before the boundary is found, and seen not to be a commit."""
    ending = small.segments()[-1]
    assert small.header(ending).begins_inside_record
    assert small.inspect(ending.name) == CommitSpan(None, None, 0, None, unseen_start=True)
    assert small.inspect(ending.name, small.before(ending.name)) == CommitSpan(None, None, 0, None)


def test_any_folder_and_name(small: Archive, tmp_path: Path) -> None:
    """The file may lie under any path and, where its name is given, have any name."""
    expected = small.inspect(small.normal.segment)
    folder = tmp_path / "-p x; rm $HOME\n'"
    folder.mkdir()
    staged = shutil.copy(small.folder / small.normal.segment, folder / "staged copy")
    moved = shutil.copy(staged, folder / small.normal.segment)
    partial = shutil.copy(staged, folder / f"{small.normal.segment}.partial")
    name = require_file_name(small.normal.segment)
    assert READER.inspect(moved, small.major, MIB) == expected
    assert READER.inspect(staged, small.major, MIB, name=name) == expected
    assert READER.inspect(partial, small.major, MIB) == expected


def test_damage_ends_the_span(small: Archive, tmp_path: Path) -> None:
    """Where a byte was changed, the span ends at the record before and says where, as replay would."""
    whole = small.inspect(small.normal.segment)
    assert whole is not None
    assert whole.first is not None
    assert whole.last is not None
    data = bytearray((small.folder / small.normal.segment).read_bytes())
    start = small.header(small.folder / small.normal.segment).page_address
    data[whole.last.lsn - start + 28] ^= 0x10  # in the last commit's own time
    damaged = tmp_path / small.normal.segment
    damaged.write_bytes(data)
    span = READER.inspect(damaged, small.major, MIB)
    assert span is not None
    assert span.stopped_at == whole.last.lsn
    assert (span.first, span.count) == (whole.first, whole.count - 1)


def test_a_hole_at_the_end_is_told_from_a_switch(small: Archive, tmp_path: Path) -> None:
    """Zeros after a switch are sound; zeros where records should be are not."""
    segment = next(path for path in small.segments() if small.before(small.normal.segment).name == path.name)
    sound = small.inspect(segment.name)
    assert sound is not None
    assert sound.stopped_at is None
    data = segment.read_bytes()
    torn = tmp_path / segment.name
    torn.write_bytes(data[: 64 * 8192] + bytes(len(data) - 64 * 8192))
    span = READER.inspect(torn, small.major, MIB)
    assert span is not None
    start = small.header(segment).page_address
    assert span.stopped_at is not None
    assert start < span.stopped_at <= start + 64 * 8192


def test_another_versions_segment_is_unknown(small: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A segment that is not of the named version or size gives no answer, and says why."""
    path = small.folder / small.normal.segment
    other = 18 if small.major == 15 else 15
    with caplog.at_level(logging.WARNING):
        assert READER.inspect(path, other, MIB) is None
        assert READER.inspect(path, small.major, 2 * MIB) is None
    assert caplog.messages == [
        f"the commits in '{path}' are not known: '{path.name}' is of PostgreSQL {small.major} "
        f"with segments of 1048576 bytes, expected {major} and {size}"
        for major, size in ((other, MIB), (small.major, 2 * MIB))
    ]


def test_pages_of_another_version_end_the_span(small: Archive, tmp_path: Path) -> None:
    """A first page that lies about the version gives nothing of the pages after it: they have the true magic."""
    data = bytearray((small.folder / small.normal.segment).read_bytes())
    data[:2] = (0xD118 if small.major == 15 else 0xD110).to_bytes(2, "little")
    disguised = tmp_path / small.normal.segment
    disguised.write_bytes(data)
    span = READER.inspect(disguised, 18 if small.major == 15 else 15, MIB)
    start = small.header(small.folder / small.normal.segment).page_address
    assert span is not None
    assert span.stopped_at is not None
    assert span.stopped_at <= start + 8192
    assert span.last is None or span.last.lsn < start + 8192


def test_what_is_no_segment_is_unknown(small: Archive, tmp_path: Path) -> None:
    """Other names, missing files and other bytes give no answer and no exception."""
    (tmp_path / "00000002.history").write_bytes(b"1\t0/1\tx\n")
    (tmp_path / small.normal.segment).write_bytes(bytes(MIB))
    assert READER.inspect(tmp_path / "00000002.history", small.major, MIB) is None
    assert READER.inspect(tmp_path / "000000010000000000000099", small.major, MIB) is None
    with pytest.raises(InvalidWalFileError):
        READER.read(tmp_path / small.normal.segment, small.major, MIB)


def fake_program(folder: Path, major: int, script: str, *, timeout_seconds: float = 0.2) -> PgWaldump:
    """Make a pg_waldump that answers to --version and else runs ``script``."""
    folder.mkdir(exist_ok=True)
    program = folder / "pg_waldump"
    version = f'[ "$1" = --version ] && echo "pg_waldump (PostgreSQL) {major}.1" && exit\n'
    program.write_text(f"#!/bin/sh\n{version}{script}\n")
    program.chmod(0o755)
    return PgWaldump(bindir=folder, timeout_seconds=timeout_seconds)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exec sleep 60", "took more than 0.2 s and was stopped"),
        ("exit 3", "ended with exit code 3 and no error message"),
        ("kill -9 $$", "ended with exit code -9 and no error message"),
        ("echo 'pg_waldump: error: out of memory'; exit 1", "out of memory"),
        ("echo 'x desc: COMMIT 2026-11-22 23:15:00.1 IST'", "line cannot be read"),
    ],
)
def test_a_program_that_fails_gives_no_answer(small: Archive, tmp_path: Path, script: str, message: str) -> None:
    """A pg_waldump that hangs, dies or prints something else never makes a wrong answer."""
    reader = fake_program(tmp_path, small.major, script)
    path = small.folder / small.normal.segment
    with pytest.raises(PostgresError, match=message):
        reader.read(path, small.major, MIB)
    assert reader.inspect(path, small.major, MIB) is None


def test_the_program_gets_no_secrets(small: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that pg_waldump sees has no credentials of ours."""
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "hidden")
    reader = fake_program(tmp_path, small.major, f"env > {tmp_path}/env; exit 3")
    assert reader.inspect(small.folder / small.normal.segment, small.major, MIB) is None
    assert "hidden" not in (tmp_path / "env").read_text()


def test_a_promotion(small: Archive, tmp_path: Path) -> None:
    """After a promotion the new timeline's first segment begins with the old timeline's page, and is read whole."""
    folder = owned_folder("promoted")
    settings = {**archive_settings(folder), "restore_command": f"cp {small.folder}/%f %p"}
    restored = PostgresCluster(small.cluster.install, pgdata=small.cluster.pgdata, settings=settings)
    (small.cluster.pgdata / "recovery.signal").touch()
    shutil.chown(small.cluster.pgdata / "recovery.signal", *_owner(small.cluster.pgdata))
    try:
        with restored, restored.connect() as connection:
            restored.wait_promoted()
            connection.execute("INSERT INTO marks DEFAULT VALUES")
            truth = last_commit_and_switch(connection)
            deadline = time.monotonic() + 60  # the archiver takes the old timeline's last segment when it gets to it
            while not (partials := list(folder.glob("*.partial"))) and time.monotonic() < deadline:
                time.sleep(0.05)
            restored.stop()
        first = folder / truth.segment
        [partial] = partials
        header = small.header(first)
        assert (require_file_name(first.name).timeline, header.timeline) == (2, 1)
        span = READER.inspect(first, small.major, MIB)
        assert span is not None
        assert span.stopped_at is None
        assert span.last == Commit(truth.at, span.last.lsn if span.last else Lsn(0), truth.xid)
        old = READER.inspect(partial, small.major, MIB)
        assert old is not None
        assert old.stopped_at is not None  # the old timeline ends inside its last segment
        assert span.last.lsn > old.stopped_at
        data = partial.read_bytes()
        assert check_segment(require_file_name(partial.name), data[:LONG_HEADER_BYTES], len(data), None).timeline == 1
    finally:
        restored.remove()
        shutil.rmtree(folder)


def _owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_the_first_commit_after_any_place(small: Archive) -> None:
    """From within a segment on, as after pieces of it: the first commit whose record ends after that place."""
    *_, before, path = [one for one in small.segments() if one.name < small.normal.segment]
    name, header = require_file_name(path.name), small.header(path)
    program = find_binaries(small.major, exactly=True).program("pg_waldump")
    done = subprocess.run([program, "-r", "Transaction", path], capture_output=True, text=True, check=False)
    found = re.findall(r"len \(rec/tot\): +\d+/ *(\d+), .* lsn: ([0-9A-F/]+), .*desc: COMMIT ", done.stdout)
    commits = [(Lsn.parse(lsn), int(length)) for length, lsn in found]
    assert len(commits) > 3
    ends = [record_end(lsn, length, MIB, header.block_size) for lsn, length in commits]
    files = {require_file_name(before.name): before, name: path}
    identifier, end = int(small.cluster.system_identifier), name.end_lsn(MIB)
    for index in (1, len(commits) // 2, len(commits) - 1):
        for begin in (Lsn(commits[index][0] + 1), commits[index][0], Lsn(ends[index] - 1)):
            first = READER.first_commit(files, begin, end, system_identifier=identifier).commit
            assert first is not None
            assert first.lsn == commits[index][0]
    nothing = READER.first_commit(files, ends[-1], end, system_identifier=identifier)
    assert (nothing.commit, nothing.read_to) == (None, end)
