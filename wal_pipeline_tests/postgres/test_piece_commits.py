"""The commits of parts of real segments, compared with those that pg_waldump prints of the whole WAL."""

import random
import subprocess
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.errors import SegmentGoneError
from wal_pipeline.postgres.piece_commits import UNKNOWN, PartCommits, PieceCommitReader
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.postgres.waldump_output import parse_commit
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, segment_name
from wal_pipeline.wal.pages import record_end

pytestmark = [pytest.mark.integration, pytest.mark.each_version]
MIB = 1 << 20
BLOCK = 8192


class WrittenWal:
    """A server's WAL up to a flushed LSN, and its commits with their ends."""

    def __init__(self, cluster: PostgresCluster, first: int) -> None:
        self.folder = cluster.pgdata / "pg_wal"
        self.major = cluster.install.version
        self.program = cluster.install.program("pg_waldump")
        self.first = first
        self.flushed = Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()"))
        self.reader = PieceCommitReader(PgWaldump(bindir=self.program.parent))
        self.commits = self._all_commits()
        self.lost: set[str] = set()

    def read(self, name: WalFileName, start: int, end: int) -> bytes:
        """Return bytes, and never those behind what was flushed."""
        if name.name in self.lost or not (self.folder / name.name).exists():
            raise SegmentGoneError(f"'{name.name}' is gone")
        assert name.start_lsn(MIB) + end <= self.flushed
        return (self.folder / name.name).read_bytes()[start:end]

    def part(self, start: Lsn, end: Lsn) -> PartCommits:
        """Ask for the commits between two LSNs of one segment."""
        name = segment_name(1, start // MIB, MIB)
        base = name.start_lsn(MIB)
        return self.reader.read(self.read, name, start - base, end - base, self.major)

    def expected(self, start: Lsn, end: Lsn) -> PartCommits:
        """Return what lies between two LSNs."""
        inside = [at for ends_at, at in self.commits if start < ends_at <= end]
        return PartCommits(CommitTimes.KNOWN, inside[0] if inside else None, inside[-1] if inside else None)

    def _all_commits(self) -> list[tuple[Lsn, datetime]]:
        begin = segment_name(1, self.first, MIB).start_lsn(MIB)
        finished = subprocess.run(
            [str(self.program), "-p", str(self.folder), "-s", str(begin), "-e", str(self.flushed), "-r", "Transaction"],
            capture_output=True,
            check=True,
            env={"TZ": "UTC", "LC_ALL": "C"},
            timeout=60,
        )
        found = [one for line in finished.stdout.splitlines() if (one := parse_commit(line)) is not None]
        return [(record_end(one.commit.lsn, one.size_bytes, MIB, BLOCK), one.commit.at) for one in found]


@pytest.fixture(scope="module")
def wal(postgres_version: PostgresInstall) -> Iterator[WrittenWal]:
    """About three segments: short commits, a huge record, a commit with thousands of subtransactions, a switch."""
    settings = {"wal_keep_size": "1GB", "checkpoint_timeout": "1h"}
    cluster = PostgresCluster(postgres_version, settings=settings).initdb(wal_segment_size_mb=1).start()
    try:
        first = Lsn.parse(cluster.value("SELECT pg_switch_wal()")) // MIB + 1
        cluster.psql("CREATE TABLE t (i int)")
        with cluster.connect() as connection:
            for number in range(4000):
                connection.execute("INSERT INTO t VALUES (%s)", [number])
            connection.execute("SELECT pg_logical_emit_message(true, 't', repeat('x', 500000))")
            connection.execute(
                "DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN INSERT INTO t VALUES (i); EXCEPTION WHEN division_by_zero "
                "THEN NULL; END; END LOOP; END $$"
            )
            for number in range(4000):
                connection.execute("INSERT INTO t VALUES (%s)", [number])
            connection.execute("SELECT pg_switch_wal()")
            for number in range(200):
                connection.execute("INSERT INTO t VALUES (%s)", [number])
        yield WrittenWal(cluster, first)
    finally:
        cluster.remove()


def test_any_cut_gives_each_commit_to_the_part_in_which_it_ends(wal: WrittenWal) -> None:
    """The parts between drawn offsets, in records and headers too, have the commits that end in them and no others."""
    draw = random.Random(1)  # noqa: S311 - the same cuts each time
    checked = 0
    for number in range(wal.first, wal.flushed // MIB + 1):
        base = number * MIB
        last = min(MIB, wal.flushed - base)
        pages = [BLOCK, 2 * BLOCK] if last > 3 * BLOCK else []
        cuts = sorted({0, last, *pages, *(draw.randrange(1, last) for _ in range(14))})
        for start, end in pairwise(cuts):
            found = wal.part(Lsn(base + start), Lsn(base + end))
            if number == wal.first and start == 0 and found == UNKNOWN:
                continue  # it may begin with the rest of a record of a segment that was never written to
            assert found == wal.expected(Lsn(base + start), Lsn(base + end)), (number, start, end)
            checked += 1
    assert checked > 40


def test_each_commit_by_itself(wal: WrittenWal) -> None:
    """A part that ends with a commit has it, and one that ends a byte before has not."""
    for ends_at, at in wal.commits[10:-10:397]:
        if (ends_at - 1) // MIB != (ends_at - 9) // MIB:
            continue
        assert wal.part(Lsn(ends_at - 8), ends_at) == PartCommits(CommitTimes.KNOWN, at, at)
        assert wal.part(Lsn(ends_at - 8), Lsn(ends_at - 1)) == PartCommits(CommitTimes.KNOWN)


def test_a_record_that_begins_in_a_segment_that_is_gone(wal: WrittenWal) -> None:
    """Whether it is a commit is not guessed."""
    crossing = next(
        number
        for number in range(wal.first + 1, wal.flushed // MIB + 1)
        if wal.read(segment_name(1, number, MIB), 0, 4)[2] & 1
    )
    wal.lost = {segment_name(1, crossing - 1, MIB).name}
    try:
        assert wal.part(Lsn(crossing * MIB), Lsn(crossing * MIB + 100_000)) == UNKNOWN
    finally:
        wal.lost = set()


def test_without_its_program_nothing_is_known(wal: WrittenWal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without the server's pg_waldump ships all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    reader = PieceCommitReader(PgWaldump(bindir=tmp_path))
    name = segment_name(1, wal.first, MIB)
    assert reader.read(wal.read, name, BLOCK, 3 * BLOCK, 14) == UNKNOWN


def test_damaged_bytes_are_not_guessed(wal: WrittenWal) -> None:
    """Where pg_waldump stops early, a commit may be behind."""

    def damaged(name: WalFileName, start: int, end: int) -> bytes:
        data = bytearray(wal.read(name, start, end))
        if start <= 100_000 < end:
            data[100_000 - start : 100_200 - start] = b"\xff" * 200
        return bytes(data)

    name = segment_name(1, wal.first, MIB)
    assert wal.reader.read(damaged, name, 90_000, 200_000, wal.major) == UNKNOWN
