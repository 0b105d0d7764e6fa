"""Reads backup history files, which PostgreSQL archives for each base backup."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Self

from wal_pipeline.errors import InvalidWalFileError, InvalidWalNameError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import MIN_WAL_SEGMENT_SIZE, FileKind, WalFileName

_LSN: Final = r"[0-9A-F]{1,8}/[0-9A-F]{1,8}"
# xlogbackup.c: build_backup_content. The lines in their order; each is a prefix and the pattern of its rest.
_LINES: Final = (
    ("START WAL LOCATION: ", rf"(?P<start_lsn>{_LSN}) \(file (?P<start_segment>[0-9A-F]{{24}})\)"),
    ("STOP WAL LOCATION: ", rf"(?P<stop_lsn>{_LSN}) \(file (?P<stop_segment>[0-9A-F]{{24}})\)"),
    ("CHECKPOINT LOCATION: ", rf"(?P<checkpoint_lsn>{_LSN})"),
    ("BACKUP METHOD: ", r"(?P<method>.*)"),
    ("BACKUP FROM: ", r"(?P<source>.*)"),
    ("START TIME: ", r"(?P<start_time>.*)"),
    ("LABEL: ", r"(?P<label>(?s:.*))"),  # may hold line ends
    ("START TIMELINE: ", r"(?P<start_timeline>[0-9]{1,10})"),
    ("STOP TIME: ", r"(?P<stop_time>.*)"),
    ("STOP TIMELINE: ", r"(?P<stop_timeline>[0-9]{1,10})"),
)
_INCREMENTAL: Final = (
    rf"(?:INCREMENTAL FROM LSN: (?P<parent_lsn>{_LSN})\nINCREMENTAL FROM TLI: (?P<parent_timeline>[0-9]{{1,10}})\n)?"
)
_LATER_LINES: Final = r"(?:(?!INCREMENTAL )[A-Z][A-Z ]+: .*\n)*"  # lines that a later release may add
_CONTENT: Final = re.compile("".join(f"{prefix}{rest}\n" for prefix, rest in _LINES) + _INCREMENTAL + _LATER_LINES)
_TIME: Final = re.compile(r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}) (?P<zone>\S+)")
_ZONE_OFFSET: Final = re.compile(r"(?P<sign>[+-])(?P<hours>[01][0-9])(?P<minutes>[0-5][0-9])?")


class InvalidBackupHistoryError(InvalidWalFileError):
    """A backup history file's content was not written by PostgreSQL, or is cut short."""


@dataclass(frozen=True, slots=True)
class BackupHistory:
    """A base backup as PostgreSQL records it.

    ``start_time`` and ``stop_time`` are the server's words, in its ``log_timezone``; ``started_at`` and
    ``stopped_at`` are None where the zone is an abbreviation that does not name one offset (such as CST).
    ``parent_lsn`` and ``parent_timeline`` say where the parent of an incremental base backup began.
    """

    start_lsn: Lsn
    start_segment: str
    stop_lsn: Lsn
    stop_segment: str
    checkpoint_lsn: Lsn
    from_standby: bool
    label: str
    start_timeline: int
    stop_timeline: int
    start_time: str
    stop_time: str
    parent_lsn: Lsn | None = None
    parent_timeline: int | None = None

    @property
    def started_at(self) -> datetime | None:
        """When the base backup began, by the server's clock."""
        return _parse_time(self.start_time)

    @property
    def stopped_at(self) -> datetime | None:
        """When the base backup ended, by the server's clock."""
        return _parse_time(self.stop_time)

    @classmethod
    def parse(cls, name: WalFileName, content: bytes) -> Self:
        """Read a backup history file and check it against its name; half a copy is refused.

        Raises: InvalidBackupHistoryError; InvalidWalNameError where the name is not a backup history file's.
        """
        if name.kind is not FileKind.BACKUP_HISTORY:
            raise InvalidWalNameError(f"'{name.name}' is not the name of a backup history file")
        text = content.decode("utf-8", "surrogateescape")
        match = _CONTENT.fullmatch(text)
        if match is None:
            raise InvalidBackupHistoryError(f"'{name.name}' {_what_is_wrong(text)}")
        history = cls._of(match)
        history._check_name(name)
        return history

    @classmethod
    def _of(cls, match: re.Match[str]) -> Self:
        parent_lsn, parent_timeline = match["parent_lsn"], match["parent_timeline"]
        return cls(
            start_lsn=Lsn.parse(match["start_lsn"]),
            start_segment=match["start_segment"],
            stop_lsn=Lsn.parse(match["stop_lsn"]),
            stop_segment=match["stop_segment"],
            checkpoint_lsn=Lsn.parse(match["checkpoint_lsn"]),
            from_standby=match["source"] == "standby",
            label=match["label"],
            start_timeline=int(match["start_timeline"]),
            stop_timeline=int(match["stop_timeline"]),
            start_time=match["start_time"],
            stop_time=match["stop_time"],
            parent_lsn=None if parent_lsn is None else Lsn.parse(parent_lsn),
            parent_timeline=None if parent_timeline is None else int(parent_timeline),
        )

    def _check_name(self, name: WalFileName) -> None:
        """Check the name: it is the start segment's name with the start LSN's offset in that segment."""
        offset = int(name.name[25:33], 16)
        aligned = self.start_lsn >= offset and (self.start_lsn - offset) % MIN_WAL_SEGMENT_SIZE == 0
        if self.start_segment != name.name[:24] or not aligned:
            raise InvalidBackupHistoryError(
                f"'{name.name}' is about a base backup that starts at {self.start_lsn} in '{self.start_segment}', "
                f"expected at {offset:X} in '{name.name[:24]}'",
                hint="The file was renamed.",
            )


def _what_is_wrong(text: str) -> str:
    position = 0
    for prefix, _rest in _LINES:
        position = text.find(prefix, position)
        if position < 0 or "\n" not in text[position:]:
            return f"is not a whole backup history file: its line '{prefix.strip()}' is missing or cut"
    return "has lines that no backup history file has, or its INCREMENTAL lines are cut"


def _parse_time(text: str) -> datetime | None:
    match = _TIME.fullmatch(text)
    zone = None if match is None else _parse_zone(match["zone"])
    if match is None or zone is None:
        return None
    try:
        return datetime.strptime(match["time"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
    except ValueError:  # no such day
        return None


def _parse_zone(text: str) -> timezone | None:
    """Read an abbreviation as ``%Z`` prints it: zones without a name of their own print their offset."""
    if text in ("UTC", "GMT"):
        return UTC
    match = _ZONE_OFFSET.fullmatch(text)
    if match is None:
        return None
    offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"] or 0))
    return timezone(-offset if match["sign"] == "-" else offset)
