"""Writes the recovery settings of a restored data directory: how PostgreSQL gets its WAL, and where it stops."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from wal_pipeline.errors import PostgresError
from wal_pipeline.wal.names import require_file_name

AUTO_CONF: Final = "postgresql.auto.conf"
RECOVERY_SIGNAL: Final = "recovery.signal"
STANDBY_SIGNAL: Final = "standby.signal"
_LINE: Final = re.compile(r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*[=\s]")
_TARGETS: Final = (
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_xid",
    "recovery_target_name",
)
_COMMANDS: Final = ("recovery_end_command", "archive_cleanup_command")
_PRIMARY: Final = frozenset({"primary_conninfo", "primary_slot_name"})
_OURS: Final = frozenset(
    {
        "restore_command",
        *_COMMANDS,
        *_TARGETS,
        "recovery_target_inclusive",
        "recovery_target_timeline",
        "recovery_target_action",
        *_PRIMARY,  # from a standby, or written by -R: the restored server follows no primary, or another one
        "hot_standby",
        "recovery_min_apply_delay",  # from a delayed standby: the restored server would wait without a word
    }
)


class TargetAction(StrEnum):
    """The server's action when it has reached its recovery target."""

    PAUSE = "pause"
    PROMOTE = "promote"
    SHUTDOWN = "shutdown"

    @property
    def recovery_line(self) -> dict[str, str]:
        """The settings with which a recovery to this action goes through to its target, and waits nowhere before it.

        With hot standby, PostgreSQL 14 and newer pauses for ever where a setting such as ``max_connections`` is lower
        than it was on the original; without it, it needs none of them. A pause needs hot standby: without it, it is a
        shutdown.
        """
        return {"hot_standby": "on" if self is TargetAction.PAUSE else "off", "recovery_min_apply_delay": "0"}


@dataclass(frozen=True, slots=True)
class FollowedPrimary:
    """The server that a standby streams from: its connection, which may hold a password, and its slot; or nothing.

    ``stays``: both are what the configuration says already.
    """

    conninfo: str = field(default="", repr=False)
    slot: str = ""
    stays: bool = False

    @property
    def values(self) -> dict[str, str]:
        """The settings."""
        return {} if self.stays else {"primary_conninfo": self.conninfo, "primary_slot_name": self.slot}


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """The recovery settings of one server. ``target`` is one of the recovery_target_* names with its value, or None.

    ``timeline`` is ``latest``, ``current`` or a number. ``extra`` are further settings, such as ``archive_mode``.
    ``follows``: the server is a standby, which has no target.
    """

    restore_command: str
    target: tuple[str, str] | None
    inclusive: bool
    timeline: str
    action: TargetAction
    extra: tuple[tuple[str, str], ...] = ()
    follows: FollowedPrimary | None = None

    def lines(self) -> list[str]:
        """Return the lines for postgresql.auto.conf, in the order of ``values``."""
        return [f"{name} = {quoted(value)}" for name, value in self.values().items()]

    def values(self) -> dict[str, str]:
        """Return each setting with its value.

        Each recovery setting has one: postgresql.conf may have another value from an earlier recovery. The chosen
        target comes last: PostgreSQL takes an empty one after it for a second target ("multiple recovery targets").
        """
        if self.follows is not None:
            return self._following(self.follows)
        chosen = None if self.target is None else self.target[0]
        return {
            "restore_command": self.restore_command,
            **{name: "" for name in (*_COMMANDS, *_TARGETS) if name != chosen},
            **self.action.recovery_line,
            "recovery_target_timeline": self.timeline,
            "recovery_target_action": self.action.value,
            "recovery_target_inclusive": "on" if self.inclusive else "off",
            **({} if self.target is None else dict([self.target])),
            **dict(self.extra),
        }

    def _following(self, primary: FollowedPrimary) -> dict[str, str]:
        """Return a standby's settings: every target is empty, for PostgreSQL would stop at one and promote it."""
        return {
            "restore_command": self.restore_command,
            **dict.fromkeys((*_COMMANDS, *_TARGETS), ""),
            "recovery_target_timeline": self.timeline,
            "recovery_min_apply_delay": "0",
            "hot_standby": "on",
            **primary.values,
            **dict(self.extra),
        }


def quoted(value: str) -> str:
    """Return a value as a string of postgresql.conf (guc-file.l: quotes doubled, backslashes escaped).

    Raises: PostgresError for a value that no line of that file can hold.
    """
    if any(character in value for character in "\n\r\0"):
        raise PostgresError(f"value {value!r} cannot stand in '{AUTO_CONF}': it has a line break or a null character")
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def write_recovery_settings(pgdata: Path, settings: RecoverySettings) -> None:
    """Make ``recovery.signal``, or a standby's ``standby.signal``, and write the settings into postgresql.auto.conf.

    Recovery settings from the base backup are removed; the other lines stay. The file may hold a password: at no moment
    can another user read it. The signal comes first: with it alone PostgreSQL does not open, without it it would.

    Raises: PostgresError.
    """
    stays = settings.follows is not None and settings.follows.stays
    replaced = (_OURS - _PRIMARY if stays else _OURS) | {name for name, _ in settings.extra}
    path = pgdata / AUTO_CONF
    signal, other = (RECOVERY_SIGNAL, STANDBY_SIGNAL) if settings.follows is None else (STANDBY_SIGNAL, RECOVERY_SIGNAL)
    try:
        os.close(_private(str(pgdata / signal), os.O_WRONLY | os.O_CREAT))
        (pgdata / other).unlink(missing_ok=True)
        kept = [line for line in _read(path).splitlines() if not _sets(line, replaced)]
        text = "\n".join([*kept, "# Recovery settings of wal-pipeline restore", *settings.lines()]) + "\n"
        temporary = path.with_name(f"{AUTO_CONF}.tmp")  # the name that ALTER SYSTEM uses; initdb and backups ignore it
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", encoding="utf-8", errors="surrogateescape", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise PostgresError(f"'{path}' cannot be written: {error.strerror}") from error


def drop_setting(pgdata: Path, name: str) -> None:
    """Take a setting of ours out of the postgresql.auto.conf of a data directory whose server may run already.

    Raises: PostgresError.
    """
    replace_settings(pgdata, (name,), {})


def replace_settings(pgdata: Path, dropped: Collection[str], added: Mapping[str, str]) -> None:
    """Take settings out of the postgresql.auto.conf of a data directory, and add others at its end.

    As root we write into a folder of the server's user: a file that is there already, or a link, is not written into.

    Raises: PostgresError.
    """
    names = {*dropped, *added}
    path = pgdata / AUTO_CONF
    temporary = path.with_name(f"{AUTO_CONF}.wal-pipeline")
    try:
        owner = path.lstat()
        lines = _read(path).splitlines(keepends=True)
        kept = "".join(line for line in lines if not _sets(line, names))
        kept += "\n" if added and kept and not kept.endswith("\n") else ""
        kept += "".join(f"{name} = {quoted(value)}\n" for name, value in added.items())
        with open(  # noqa: PTH123 - its own flags
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb"
        ) as file:
            file.write(kept.encode("utf-8", "surrogateescape"))
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise PostgresError(f"'{path}' cannot be written: {error.strerror}") from error


def _read(path: Path) -> str:
    """Return a file's text, empty where there is none. A link is an error: as root we would copy what it points to."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", opener=_private) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _sets(line: str, names: frozenset[str] | set[str]) -> bool:
    match = _LINE.match(line)
    return match is not None and match["name"].lower() in names


_DIGITS: Final = 8  # a segment's name is three numbers of eight hex digits: timeline, log, segment in it


def bounded_command(restore_command: str, last_segment: str) -> str:
    """Return the command behind a guard, to which each segment after ``last_segment``, on any timeline, is absent.

    Between the plan and the replay the archive may grow, and files may be fetched ahead. History files pass the guard:
    PostgreSQL looks for them to choose the new timeline. Exit code 1 is absence (xlogarchive.c: RestoreArchivedFile);
    the guard computes only with names of 24 characters, so that it cannot fail by itself.
    """
    name = require_file_name(last_segment).name
    log, segment = name[_DIGITS : 2 * _DIGITS], name[2 * _DIGITS :]
    any_digits = "?" * _DIGITS
    return (
        f'f="%f"; case "$f" in {any_digits * 3}) n=${{f#{any_digits}}}; '
        f"l=$((0x${{n%%{any_digits}}})) s=$((0x${{n#{any_digits}}})); "  # %% is one % in a restore_command
        f"if [ $l -gt $((0x{log})) ] || {{ [ $l -eq $((0x{log})) ] && [ $s -gt $((0x{segment})) ]; }}; "
        f"then exit 1; fi;; esac; {restore_command}"
    )
