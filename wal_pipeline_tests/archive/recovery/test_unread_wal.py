"""WAL that this program does not know is told in one note, in the status and in each plan."""

from dataclasses import replace

import pytest

from wal_pipeline.archive.records import CommitTimes
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.restore_plan import plan_restore
from wal_pipeline.archive.recovery.target import RecoveryTarget
from wal_pipeline.archive.recovery.unread_wal import unread_wal_note
from wal_pipeline_tests.support.archive_worlds import backup, contents, day_segments, name


def archive(major: int | None, times: CommitTimes) -> ArchiveContents:
    """An archive whose last segments are of a version."""
    files = day_segments(1, range(1, 10))
    newer = [
        replace(file, server_major=major, commit_times=times, first_commit_at=None, last_commit_at=None)
        for file in files[5:]
    ]
    return contents([*files[:5], *newer], [backup("one", 1, 2.1, 2.5)])


@pytest.mark.parametrize(
    ("major", "times", "words"),
    [
        (
            None,
            CommitTimes.UNKNOWN,
            "of a version of PostgreSQL that this program does not know, or encrypted: it is "
            "archived and restored as it is, and the moments of its commits are not known.",
        ),
        (
            19,
            CommitTimes.UNKNOWN,
            "of PostgreSQL 19, which is newer than this program knows: it is archived and "
            "restored as it is, and the moments of its commits are not known.",
        ),
        (
            19,
            CommitTimes.KNOWN,
            "of PostgreSQL 19, which is newer than this program knows: it is archived and restored "
            "as it is, and the moments of its commits were read with that version's pg_waldump.",
        ),
    ],
)
def test_unknown_wal_is_not_passed_over_in_silence(major: int | None, times: CommitTimes, words: str) -> None:
    """The plan has the note, once, and still is a plan."""
    note = f"WAL up to '{name(1, 9)}' is {words}"
    found = archive(major, times)
    assert unread_wal_note(found) == note
    assert plan_restore(found, RecoveryTarget()).notes.count(note) == 1


@pytest.mark.parametrize("major", [13, 15, 18])
def test_known_wal_has_no_note(major: int) -> None:
    """Nor has an empty archive."""
    assert unread_wal_note(archive(major, CommitTimes.KNOWN)) is None
    assert unread_wal_note(contents([], [])) is None
