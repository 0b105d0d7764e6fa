"""A recovery's progress is read from the server's log, whatever else is written into it."""

from datetime import UTC, datetime

import pytest

from wal_pipeline.postgres.replay_progress import RecoveryProgress, RecoveryState
from wal_pipeline.wal.lsn import Lsn

PREFIX = "2026-11-22 18:35:33.336 UTC [15139] "
LOG = """\
2026-11-22 18:35:33.336 UTC [15139] LOG:  database system was interrupted; last known up at 2026-11-22 18:35:24 UTC
2026-11-22 18:35:34.170 UTC [15139] LOG:  restored log file "000000010000000000000015" from archive
2026-11-22 18:35:35.072 UTC [15139] LOG:  redo starts at 0/1500028
2026-11-22 18:35:36.413 UTC [15139] LOG:  consistent recovery state reached at 0/1500120
2026-11-22 18:35:36.413 UTC [15131] LOG:  database system is ready to accept read-only connections
2026-11-22 18:35:36.413 UTC [15139] LOG:  recovery stopping before commit of transaction 6, time 2026-11-22 18:35:27+00
2026-11-22 18:35:36.413 UTC [15139] LOG:  redo done at 0/161F340 system usage: CPU: user: 0.00 s
2026-11-22 18:35:36.413 UTC [15139] LOG:  last completed transaction was at log time 2026-11-22 19:35:27.57309+01
2026-11-22 18:35:37.925 UTC [15139] LOG:  selected new timeline ID: 2
2026-11-22 18:35:39.732 UTC [15131] LOG:  database system is ready to accept connections
"""


def test_progress_is_read_from_the_log() -> None:
    """Each state and what was reached, in whatever zone the server writes times."""
    progress = RecoveryProgress()
    states = []
    for seconds, line in enumerate(LOG.splitlines()):
        progress.read(line, seconds)
        states.append(progress.state)
    assert states == [
        RecoveryState.STARTING,
        RecoveryState.STARTING,
        RecoveryState.REPLAYING,
        *[RecoveryState.CONSISTENT] * 6,
        RecoveryState.OPEN,
    ]
    assert (progress.redo_lsn, progress.consistent_lsn) == (Lsn.parse("0/1500028"), Lsn.parse("0/1500120"))
    assert (progress.replayed_lsn, progress.timeline, progress.segments) == (Lsn.parse("0/161F340"), 2, 1)
    assert progress.last_commit_at == datetime(2026, 11, 22, 18, 35, 27, 573090, tzinfo=UTC)
    assert progress.stopped == "recovery stopping before commit of transaction 6, time 2026-11-22 18:35:27+00"
    assert progress.seconds == {"starting": 1, "replaying": 2, "consistent": 3, "replayed": 6, "open": 9}


def test_errors_are_kept() -> None:
    """A fatal line is kept in the server's words."""
    progress = RecoveryProgress()
    progress.read(f"{PREFIX}FATAL:  recovery ended before configured recovery target was reached", 1)
    assert progress.errors == ["FATAL:  recovery ended before configured recovery target was reached"]


def read_all(*lines: str) -> RecoveryProgress:
    """Read lines of a log behind the prefix."""
    progress = RecoveryProgress()
    for line in lines:
        progress.read(f"{PREFIX}{line}", 1)
    return progress


def test_a_verbose_log_hides_no_end() -> None:
    """log_error_verbosity = verbose puts the SQLSTATE before each message."""
    progress = read_all(
        "LOG:  00000: redo starts at 0/1500028", "LOG:  00000: database system is ready to accept connections"
    )
    assert (progress.state, progress.redo_lsn) == (RecoveryState.OPEN, Lsn.parse("0/1500028"))


@pytest.mark.parametrize(
    "line",
    [
        "LOG:  database system is ready to accept connections",
        f"restore_command says: {PREFIX}LOG:  database system is ready to accept connections",
        f"{PREFIX}LOG:  statement: SELECT 'LOG:  database system is ready to accept connections'",
        f"\t{PREFIX}LOG:  database system is ready to accept connections",
    ],
)
def test_no_other_program_says_that_the_server_is_open(line: str) -> None:
    """The restore_command and sessions write into the same log."""
    progress = RecoveryProgress()
    progress.read(line, 1)
    assert progress.state is RecoveryState.STARTING


def test_a_pause_because_of_a_low_setting_is_none_at_the_target() -> None:
    """PostgreSQL says the setting in a DETAIL, and then that it has paused."""
    low = "max_connections = 30 is a lower setting than on the primary server, where its value was 77."
    progress = read_all(
        "WARNING:  hot standby is not possible because of insufficient parameter settings",
        f"DETAIL:  {low}",
        "LOG:  recovery has paused",
    )
    assert (progress.state, progress.too_low) == (RecoveryState.BLOCKED, [low])


def test_a_pause_by_a_session_is_no_end() -> None:
    """It holds until the session lets the replay go on."""
    progress = read_all("LOG:  redo starts at 0/1500028", "LOG:  recovery has paused")
    assert (progress.state, progress.held) == (RecoveryState.REPLAYING, True)
    progress.read(f'{PREFIX}LOG:  restored log file "000000010000000000000015" from archive', 2)
    assert not progress.held


def test_a_warning_of_the_server_is_never_thrown_away() -> None:
    """Each is kept once, and changes no state; what is said elsewhere, or by another program, is none."""
    progress = RecoveryProgress()
    for line in (
        f'{PREFIX}WARNING:  could not remove file "base/5/16384": Permission denied',
        f'{PREFIX}WARNING:  could not remove file "base/5/16384": Permission denied',
        f"{PREFIX}WARNING:  hot standby is not possible because of insufficient parameter settings",
        "WARNING:  a word of the restore_command",
    ):
        progress.read(line, 1)
    assert progress.warnings == ['could not remove file "base/5/16384": Permission denied']
    assert (progress.lost, progress.state, progress.seconds) == ((), RecoveryState.STARTING, {})


@pytest.mark.parametrize(
    "words",
    [
        "01000: page verification failed, calculated checksum 4711 but expected 815",
        'invalid page in block 3 of relation "base/5/16384"; zeroing out page',
        "removing corrupt two-phase state file for transaction 731",
    ],
)
def test_a_warning_that_means_loss_is_no_mere_warning(words: str) -> None:
    """However many warnings came before it."""
    progress = RecoveryProgress()
    for number in range(100):
        progress.read(f"{PREFIX}WARNING:  something else {number}", 1)
    progress.read(f"{PREFIX}WARNING:  {words}", 2)
    assert progress.lost == (words.removeprefix("01000: "),)


def test_pages_that_replay_missed_are_kept_by_their_folder() -> None:
    """One of each folder, in the server's words, however many there are; they are no warnings beside that."""
    progress = read_all(
        "WARNING:  page 0 of relation base/16385/16390 is uninitialized",
        "WARNING:  WAL contains references to invalid pages",
        *(f"WARNING:  page {number} of relation base/16385/16391_vm does not exist" for number in range(100)),
        "WARNING:  page 7 of relation pg_tblspc/16400/PG_15_202209061/16386/1 does not exist",
        "WARNING:  page 1 of relation global/1262 is uninitialized",
    )
    assert progress.invalid == {
        "base/16385": "page 0 of relation base/16385/16390 is uninitialized",
        "pg_tblspc/16400/PG_15_202209061/16386": (
            "page 7 of relation pg_tblspc/16400/PG_15_202209061/16386/1 does not exist"
        ),
        "global": "page 1 of relation global/1262 is uninitialized",
    }
    assert progress.warnings == []
