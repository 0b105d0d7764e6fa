"""What lies in quarantine refuses what belongs to it, and nothing else."""

from pathlib import Path

from wal_pipeline.archive.records import WalFile
from wal_pipeline.commands.continuity.refused import RefusedFiles
from wal_pipeline.wal.joint import Joint, SegmentJoints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, require_file_name
from wal_pipeline.wal.timeline import TimelineHistory
from wal_pipeline_tests.support.archive_worlds import day, segment
from wal_pipeline_tests.support.segments import name_of
from wal_pipeline_tests.support.wal_writer import MIB, WalWriter

MOMENT = "20261101T000000.000000Z"
ARCHIVED = TimelineHistory.parse(2, b"1\t0/500000\tno recovery target specified\n")


def following(begins: Joint | None) -> WalFile:
    """Return a segment that says what it continues."""
    made = segment(1, 4, day(1))
    return WalFile(
        made.name, FileKind.SEGMENT, 1, 1, MIB, "0" * 64, made.spooled_at, joints=SegmentJoints(1, begins=begins)
    )


def test_a_refused_history_counts_only_beside_an_archived_one(tmp_path: Path) -> None:
    """The same one, or one of which no store has another, refuses nothing."""
    (tmp_path / f"00000002.history.{MOMENT}").write_bytes(b"1\t0/600000\tno recovery target specified\n")
    refused = RefusedFiles.of(tmp_path)
    (other,) = refused.others(2, ARCHIVED)
    assert other.switches[0].lsn == Lsn(0x600000)
    assert refused.others(2, None) == refused.others(2, other) == refused.others(3, ARCHIVED) == []


def test_only_what_can_continue_a_refused_segment_is_refused(tmp_path: Path) -> None:
    """Its own end decides; half a segment has none, and what is not known is held."""
    writer = WalWriter(first=3)
    last = writer.record(500)
    writer.switch()
    ((_, data),) = writer.segments()
    end = Joint(Lsn(last + 504), 0)
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder, content in ((whole, data), (half, data[: MIB // 2])):
        folder.mkdir()
        (folder / f"{name_of(3)}.{MOMENT}").write_bytes(content)
    refused = RefusedFiles.of(whole)
    assert refused.may_continue(name_of(3), following(end))
    assert refused.may_continue(name_of(3), following(None))
    assert not refused.may_continue(name_of(3), following(Joint(Lsn(end.record or 0) + 8, 0)))  # type: ignore[arg-type]
    assert not refused.may_continue(name_of(4), following(end))
    assert not RefusedFiles.of(half).may_continue(name_of(3), following(end))


def test_a_segment_that_stays_in_the_spool_counts_too() -> None:
    """What follows it would be stored behind the archive's own segment."""
    refused = RefusedFiles()
    held = WalFile(name_of(3), FileKind.SEGMENT, 1, 1, MIB, "0" * 64, day(1))
    refused.add_held(held)
    assert not refused.may_continue(held.name, following(None))
    with_end = WalFile(
        *(name_of(3), FileKind.SEGMENT, 1, 1, MIB, "0" * 64, day(1)), joints=SegmentJoints(1, ends=Joint(Lsn(9), 0))
    )
    refused.add_held(with_end)
    assert refused.may_continue(held.name, following(Joint(Lsn(9), 0)))


def test_names_that_are_no_archive_files_are_passed_over(tmp_path: Path) -> None:
    """A folder that is not there, notes of a person, and a history that nobody can read."""
    assert RefusedFiles.of(tmp_path / "none") == RefusedFiles()
    (tmp_path / "README").touch()
    (tmp_path / f"00000002.history.{MOMENT}").write_bytes(b"nonsense")
    assert RefusedFiles.of(tmp_path) == RefusedFiles()
    found = RefusedFiles()
    found.add(require_file_name("00000002.history"), tmp_path / "gone")
    assert found == RefusedFiles()
