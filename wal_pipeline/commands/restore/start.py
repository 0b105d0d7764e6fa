"""Starts a restored server, watches its recovery to the end, and reports the moment that it reached."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import RecoveryProgress, RecoveryServer, RecoveryState, ServerUser
from wal_pipeline.wal.lsn import InvalidLsnError, Lsn

_PSQL_TIMEOUT_SECONDS = 15
_REACHED = "SELECT pg_last_wal_replay_lsn(), extract(epoch FROM pg_last_xact_replay_timestamp())"


@dataclass(frozen=True, slots=True)
class ServerIsolation:
    """How a restored server is set apart from its original, until its next restart.

    ``settings`` stand on the server's command line, where they win over every file in the data directory.
    ``environment`` is all that the server's process gets, None: ours, with the stores' credentials.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """Where a recovery ended. ``seconds``: until redo began, until consistent, until the end, all from the start.

    ``replayed_lsn`` and ``last_commit_at`` are of the last record and the last commit that were replayed; None where
    the server did not tell (no commit at all, or a paused server that does not let us in). ``redo_lsn`` is where replay
    began.
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
    redo_lsn: Lsn | None = None


def configured_server(
    prepared: PreparedRestore, settings: Mapping[str, str], config_file: Path | None = None
) -> ServerIsolation:
    """Return the isolation of a server that takes its original's place: only the given settings differ.

    Raises: RestoreError where the server's configuration file is not found.
    """
    found = find_config_file(prepared.request.pgdata, prepared.binaries.major, config_file)
    return ServerIsolation({**settings, **({} if found is None else {"config_file": str(found)})})


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
    prepared: PreparedRestore,
    isolation: ServerIsolation,
    *,
    log: Path,
    on_progress: Callable[[RecoveryProgress], object] = lambda _: None,
) -> RecoveryResult:
    """Start the server and return when its recovery ended, paused or shut it down. The server goes on.

    Raises: PostgresError with the end of the server's log where recovery failed.
    """
    return _recover(_server(prepared, isolation, log), prepared, log, on_progress=on_progress)


@contextmanager
def running_server(
    prepared: PreparedRestore, isolation: ServerIsolation, *, log: Path, timeout_seconds: float
) -> Iterator[RecoveryResult]:
    """Start the server, give the end of its recovery to the block, and stop the server after it, in any case.

    Raises: as ``start_and_watch``, also where recovery takes longer than ``timeout_seconds``.
    """
    server = _server(prepared, isolation, log)
    try:
        yield _recover(server, prepared, log, timeout_seconds=timeout_seconds)
    finally:
        server.stop()


def _server(prepared: PreparedRestore, isolation: ServerIsolation, log: Path) -> RecoveryServer:
    return RecoveryServer(
        prepared.binaries,
        prepared.request.pgdata,
        user=prepared.user,
        log=log,
        settings=isolation.settings,
        inherited=isolation.environment,
    )


def _recover(
    server: RecoveryServer,
    prepared: PreparedRestore,
    log: Path,
    *,
    timeout_seconds: float | None = None,
    on_progress: Callable[[RecoveryProgress], object] = lambda _: None,
) -> RecoveryResult:
    begun = time.monotonic()
    server.start()
    progress = server.watch(timeout_seconds, on_progress)
    seconds = {**progress.seconds, "total": time.monotonic() - begun}
    lsn, commit_at = progress.replayed_lsn, progress.last_commit_at
    if progress.state is RecoveryState.PAUSED:
        lsn, commit_at = _ask(prepared.binaries, prepared.request.pgdata, prepared.user)
    return RecoveryResult(
        state=progress.state,
        replayed_lsn=lsn,
        last_commit_at=commit_at,
        timeline=progress.timeline,
        stopped=progress.stopped,
        segments=progress.segments,
        seconds=seconds,
        log=log,
        pid=server.pid,
        redo_lsn=progress.redo_lsn,
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
