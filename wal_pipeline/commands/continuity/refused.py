"""Reads from the quarantine folder which histories were refused: what belongs to them must not be archived either."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name
from wal_pipeline.wal.timeline import TimelineHistory

_QUARANTINED: Final = re.compile(r"(?P<name>.+)\.\d{8}T\d{6}\.\d+Z(?:\.\d+)?\Z")
_MAX_BYTES: Final = 1 << 20


@dataclass(slots=True)
class RefusedFiles:
    """The histories by timeline, and the names of segments, of which the archive holds other content.

    A segment in quarantine is refused for whatever follows it until its follower is seen to continue the archive's.
    """

    histories: dict[int, list[TimelineHistory]] = field(default_factory=dict)
    segments: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, quarantine_folder: Path) -> Self:
        """Read the folder; what cannot be read there refuses nothing."""
        found = cls()
        try:
            paths = sorted(quarantine_folder.iterdir())
        except OSError:
            return found
        for path in paths:
            match = _QUARANTINED.match(path.name)
            name = parse_file_name(match["name"]) if match else None
            if name is not None:
                found.add(name, path)
        return found

    def add(self, name: WalFileName, path: Path) -> None:
        """Note a file that lies in quarantine at ``path``."""
        if name.kind is FileKind.SEGMENT:
            self.segments.add(name.name)
        elif name.kind is FileKind.HISTORY:
            history = _read(name, path)
            if history is not None:
                self.histories.setdefault(name.timeline, []).append(history)

    def others(self, timeline: int, archived: TimelineHistory | None) -> list[TimelineHistory]:
        """Return the refused histories of a timeline that are not the archived one."""
        return [
            one for one in self.histories.get(timeline, ()) if archived is None or one.switches != archived.switches
        ]


def _read(name: WalFileName, path: Path) -> TimelineHistory | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        return TimelineHistory.parse(name.timeline, path.read_bytes())
    except (OSError, InvalidWalFileError):
        return None
