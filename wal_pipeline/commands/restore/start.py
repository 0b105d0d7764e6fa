"""Starts a restored server, watches its recovery to the end, and reports the moment that it reached.

A restore and a drill start their servers here alone; what differs between them stands in ``ServerIsolation``.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.chosen.left_out import LeftOutDatabases
from wal_pipeline.commands.restore.places.configuration import CONFIG_NAME, find_outside
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import PostgresError, RestoreError
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.isolation import copy_settings, own_access_files, worker_settings
from wal_pipeline.postgres.recovery_server import RecoveryLimits, RecoveryServer, ServerUser
from wal_pipeline.postgres.replay_progress import RecoveryProgress, RecoveryState, lost_words
from wal_pipeline.postgres.required_settings import (
    REQUIRED_SETTINGS,
    configured_values,
    settings_of_original,
    too_low,
)
from wal_pipeline.postgres.unlogged_rest import find_unlogged_rest
from wal_pipeline.wal.lsn import InvalidLsnError, Lsn

_PSQL_TIMEOUT_SECONDS = 15
_REACHED = "SELECT pg_last_wal_replay_lsn(), extract(epoch FROM pg_last_xact_replay_timestamp())"
_MOST_STARTS: Final = 20  # each but the first with a higher setting, as the original had it from some moment on
_WITHOUT_HOT_STANDBY: Final = ("max_prepared_transactions",)  # all that recovery then needs of the five


@dataclass(frozen=True, slots=True)
class ServerIsolation:
    """How a restored server is set apart from its original, until its next restart.

    ``settings`` stand on the server's command line, where they win over every file in the data directory.
    ``environment`` is all that the server's process gets, None: ours, with the stores' credentials. ``wal_folders``
    are where its WAL files come in.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] | None = None
    wal_folders: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """Where a recovery ended. ``seconds``: until redo began, until consistent, until the end, all from the start.

    ``replayed_lsn`` and ``last_commit_at`` are of the last record and the last commit that were replayed; None where
    the server did not tell (no commit at all, or a paused server that does not let us in). ``redo_lsn`` is where replay
    began. ``settings`` stand on the server's command line; of these ``raised`` are as high as on the original, because
    recovery needs them so. ``lower`` are settings that were higher on the original, with its values. ``warnings`` are
    the server's while it recovered. ``missed`` are its words on pages that it did not find, of databases that were not
    left out.
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
    settings: Mapping[str, str] = field(default_factory=dict)
    raised: Mapping[str, int] = field(default_factory=dict)
    lower: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()

    @property
    def lost(self) -> str | None:
        """The loss that the server itself tells, though it goes on; None where it tells none."""
        found = (*lost_words(self.warnings), *self.missed)
        return f"PostgreSQL lost data while it recovered: {'; '.join(found)}" if found else None

    @property
    def lower_words(self) -> tuple[str, ...]:
        """One line for each setting that was higher on the original than in this server's configuration."""
        return tuple(
            f"{name}: the original had {value}, the configuration here has less{until}"
            for values, until in ((self.raised, ", and it holds until the next restart"), (self.lower, ""))
            for name, value in values.items()
        )


def restored_server(
    prepared: PreparedRestore,
    settings: Mapping[str, str],
    config_file: Path | None = None,
    wal_folders: tuple[Path, ...] = (),
) -> ServerIsolation:
    """Return the isolation of a restored server: a copy is set apart from its original, a replacement is not.

    ``settings`` are a person's, who may know better. Raises: RestoreError where the server's configuration file is not
    found, PostgresError where it cannot be read.
    """
    found = find_config_file(prepared.request.pgdata, prepared.binaries.major, config_file)
    given = {**settings, **({} if found is None else {"config_file": str(found)})}
    ours = prepared.request.action.recovery_line if prepared.request.standby is None else {}
    if prepared.request.is_copy:
        ours = {**ours, **copy_isolation(prepared, {**ours, **given})}
    return ServerIsolation({**ours, **given}, wal_folders=wal_folders)


def copy_isolation(prepared: PreparedRestore, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that set a copy apart from its original. ``settings`` are those that it has besides.

    Raises: PostgresError where a copy that must be able to start workers has a configuration that cannot be read.
    """
    name, preloaded = "shared_preload_libraries", None
    hot_standby = _is_on(settings, "hot_standby")
    if hot_standby:
        preloaded = _configured(prepared, (name,), ServerIsolation(settings))[name]
    return {
        **copy_settings(prepared.binaries.major),
        **worker_settings(preloaded, hot_standby=hot_standby),
        **own_access_files(prepared.request.pgdata),
    }


def _is_on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "on").lower() not in ("off", "of", "false", "no", "0")


def find_config_file(pgdata: Path, major: int, given: Path | None = None) -> Path | None:
    """Return the configuration file outside the data directory; None where it is inside.

    Raises: RestoreError where there is none.
    """
    if given is not None:
        return given.absolute()
    if (pgdata / CONFIG_NAME).exists():
        return None
    if (found := find_outside(pgdata.absolute(), major)) is not None:
        return found
    raise RestoreError(
        f"'{pgdata}' has no {CONFIG_NAME}, so the server cannot be started",
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

    Raises: PostgresError with the end of the server's log where recovery failed, or went on no more.
    """
    return _Recovery(prepared, isolation, log, RecoveryLimits(), on_progress).run()


@contextmanager
def running_server(
    prepared: PreparedRestore,
    isolation: ServerIsolation,
    *,
    log: Path,
    timeout_seconds: float,
    on_progress: Callable[[RecoveryProgress], object] = lambda _: None,
    keeps_nothing: bool = False,
) -> Iterator[RecoveryResult]:
    """Start the server, give the end of its recovery to the block, and stop the server after it, in any case.

    ``keeps_nothing``: its files are removed after the block, so that it need not write them before it stops.

    Raises: as ``start_and_watch``, also where recovery takes longer than ``timeout_seconds``.
    """
    recovery = _Recovery(prepared, isolation, log, RecoveryLimits(timeout_seconds), on_progress)
    try:
        yield recovery.run()
    finally:
        recovery.stop(immediately=keeps_nothing)


class _Recovery:
    """One recovery. Its server is started again where a setting must be as high as it was on the original.

    The control file of the base backup has the original's values of then, and replay writes later ones into it, before
    it stops or pauses because of them. So a server that ended has one that tells what it needs.
    """

    def __init__(
        self,
        prepared: PreparedRestore,
        isolation: ServerIsolation,
        log: Path,
        limits: RecoveryLimits,
        on_progress: Callable[[RecoveryProgress], object],
    ) -> None:
        self._prepared = prepared
        self._isolation = isolation
        self._log = log
        self._limits = limits
        self._on_progress = on_progress
        self._server: RecoveryServer | None = None
        self._raised: dict[str, int] = {}
        self._segments = 0
        self._warnings: dict[str, None] = {}
        self._missed: dict[str, None] = {}
        self._rests: set[str | None] = set()

    def run(self) -> RecoveryResult:
        """Start the server, and watch its recovery to the end."""
        begun = time.monotonic()
        low = self._too_low()
        self._raise_settings(low)
        progress = self._watch_to_the_end()
        seconds = {**progress.seconds, "total": time.monotonic() - begun}
        lsn, commit_at = progress.replayed_lsn, progress.last_commit_at
        prepared = self._prepared
        if progress.state in (RecoveryState.PAUSED, RecoveryState.FOLLOWING):
            lsn, commit_at = _ask(prepared.binaries, prepared.request.pgdata, prepared.user)
        return RecoveryResult(
            state=progress.state,
            replayed_lsn=lsn,
            last_commit_at=commit_at,
            timeline=progress.timeline,
            stopped=progress.stopped,
            segments=self._segments,
            seconds=seconds,
            log=self._log,
            pid=self._server.pid if self._server is not None else None,
            redo_lsn=progress.redo_lsn,
            settings=self._settings(),
            raised=self._raised,
            lower=self._lower(low),
            warnings=tuple(self._warnings),
            missed=tuple(self._missed),
        )

    def stop(self, *, immediately: bool) -> None:
        """Stop the server. No error where it has ended."""
        if self._server is not None:
            self._server.stop(immediately=immediately)

    def _watch_to_the_end(self) -> RecoveryProgress:
        for _ in range(_MOST_STARTS):
            server = self._server = self._make_server()
            server.start()
            try:
                progress = server.watch(self._limits, self._on_progress)
                self._warnings.update(dict.fromkeys(progress.warnings))
                self._note_missed(progress)
            except PostgresError as error:
                self._segments += server.progress.segments
                if server.is_running or not (self._raise_settings(self._too_low()) or self._may_start_again(error)):
                    raise
                continue
            self._segments += progress.segments
            if progress.state is not RecoveryState.BLOCKED:
                return progress
            server.stop()
            if not self._raise_settings(self._too_low()):
                break
        raise self._blocked()

    def _may_start_again(self, error: PostgresError) -> bool:
        """Whether the server ended because of the rest of an unlogged relation, which its next start removes."""
        rest = find_unlogged_rest(error.message, self._prepared.request.pgdata)
        is_new = rest is not None and rest not in self._rests
        self._rests |= {rest}
        return is_new

    def _note_missed(self, progress: RecoveryProgress) -> None:
        chosen = self._prepared.chosen
        left_out = LeftOutDatabases() if chosen is None else chosen.left_out
        self._missed.update(dict.fromkeys(left_out.missed(progress.invalid)))

    def _blocked(self) -> PostgresError:
        words = self._server.progress.too_low if self._server is not None else []
        return PostgresError(
            f"the recovery in '{self._prepared.request.pgdata}' has paused before its target, and its server was "
            f"stopped: {' '.join(words) or 'a setting is lower than on its original'}",
            hint="Give the server the original's value, such as --set max_connections=300, and start it again.",
        )

    def _settings(self) -> dict[str, str]:
        return {**self._isolation.settings, **{name: str(value) for name, value in self._raised.items()}}

    def _make_server(self) -> RecoveryServer:
        prepared = self._prepared
        return RecoveryServer(
            prepared.binaries,
            prepared.request.pgdata,
            user=prepared.user,
            log=self._log,
            settings=self._settings(),
            inherited=self._isolation.environment,
            wal_folders=self._isolation.wal_folders,
            follows=prepared.request.standby is not None,
        )

    def _raise_settings(self, low: Mapping[str, int]) -> bool:
        """Raise the settings that recovery needs, of those that are too low; False where it needs none of them."""
        names = REQUIRED_SETTINGS if _is_on(self._isolation.settings, "hot_standby") else _WITHOUT_HOT_STANDBY
        found = {name: value for name, value in low.items() if name in names}
        self._raised |= found
        return bool(found)

    def _lower(self, low: Mapping[str, int]) -> dict[str, int]:
        """Return which of the low settings stay so, but for those of a copy that must be."""
        ours = self._isolation.settings if self._prepared.request.is_copy else {}
        return {name: value for name, value in low.items() if name not in ours and name not in self._raised}

    def _too_low(self) -> dict[str, int]:
        prepared = self._prepared
        needed = settings_of_original(prepared.request.pgdata, prepared.binaries)
        isolation = ServerIsolation(self._settings(), self._isolation.environment)
        return too_low(needed, _configured(prepared, REQUIRED_SETTINGS, isolation))


def _configured(prepared: PreparedRestore, names: tuple[str, ...], isolation: ServerIsolation) -> dict[str, str]:
    return configured_values(
        names,
        prepared.request.pgdata,
        prepared.binaries,
        user=prepared.user,
        settings={**isolation.settings, "data_directory": str(prepared.request.pgdata)},
        environment=os.environ if isolation.environment is None else isolation.environment,
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
