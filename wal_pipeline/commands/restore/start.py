"""Start a restored server, watch its recovery to the end, and say which moment it reached."""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import RecoveryProgress, RecoveryServer, RecoveryState, ServerUser
from wal_pipeline.wal.lsn import InvalidLsnError, Lsn

_PSQL_TIMEOUT_SECONDS = 15
_REACHED = "SELECT pg_last_wal_replay_lsn(), extract(epoch FROM pg_last_xact_replay_timestamp())"


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """Where a recovery ended. ``seconds``: until redo began, until consistent, until the end, all from the start.

    ``replayed_lsn`` and ``last_commit_at`` are of the last record and the last commit that were replayed; None where
    the server did not tell (no commit at all, or a paused server that does not let us in).
    """

    state: RecoveryState
    replayed_lsn: Lsn | None
    last_commit_at: datetime | None
    timeline: int | None
    stopped: str | None
    segments: int
    seconds: Mapping[str, float]
    log: Path
    pid: int | None


def find_config_file(pgdata: Path, major: int, given: Path | None = None) -> Path | None:
    """Return the configuration file outside the data directory; None where it is inside.

    Debian keeps it in /etc/postgresql. Raises: RestoreError where there is none.
    """
    if given is not None:
        return given.absolute()
    if (pgdata / "postgresql.conf").exists():
        return None
    for path in sorted(Path(f"/etc/postgresql/{major}").glob("*/postgresql.conf")):
        if f"'{pgdata}'" in path.read_text(encoding="utf-8", errors="replace"):
            return path
    raise RestoreError(
        f"'{pgdata}' has no postgresql.conf, so the server cannot be started",
        hint="Name the configuration file with --config-file, or start the server yourself: all else is in place.",
    )


def start_and_watch(
    binaries: Binaries,
    pgdata: Path,
    user: ServerUser,
    *,
    log: Path,
    settings: Mapping[str, str] | None = None,
    prefetched: PrefetchFolder | None = None,
    timeout_seconds: float | None = None,
    on_progress: Callable[[RecoveryProgress], object] = lambda _: None,
) -> RecoveryResult:
    """Start the server, return when recovery ended, paused or shut it down, and clear away what was fetched ahead.

    Raises: PostgresError with the end of the server's log where recovery failed.
    """
    begun = time.monotonic()
    server = RecoveryServer(binaries, pgdata, user=user, log=log, settings=settings)
    server.start()
    progress = server.watch(timeout_seconds, on_progress)
    seconds = {**progress.seconds, "total": time.monotonic() - begun}
    lsn, commit_at = progress.replayed_lsn, progress.last_commit_at
    if progress.state is RecoveryState.PAUSED:
        lsn, commit_at = _ask(binaries, pgdata, user)
    elif prefetched is not None:
        prefetched.destroy()
    return RecoveryResult(
        progress.state, lsn, commit_at, progress.timeline, progress.stopped, progress.segments, seconds, log, server.pid
    )


def _ask(binaries: Binaries, pgdata: Path, user: ServerUser) -> tuple[Lsn | None, datetime | None]:
    """Ask a paused server where it is; nothing where it does not let the operating system's user in."""
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        port, host = lines[3], lines[4] or lines[5]
        done = subprocess.run(
            [
                *(str(binaries.program("psql")), "--no-psqlrc", "--no-password", "-At", "-F", " "),
                *("-h", host, "-p", port, "-d", "postgres", "-c", _REACHED),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PSQL_TIMEOUT_SECONDS,
            cwd="/",
            **user.popen_options(),  # type: ignore[call-overload]
        )
        lsn, _, epoch = done.stdout.strip().partition(" ")
        return Lsn.parse(lsn), datetime.fromtimestamp(float(epoch)).astimezone() if epoch else None
    except (OSError, IndexError, ValueError, InvalidLsnError, subprocess.TimeoutExpired):
        return None, None
