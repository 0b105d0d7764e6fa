"""Reads from the quarantine folder which histories were refused: what belongs to them must not be archived either."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from wal_pipeline.archive.records import WalFile
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.wal.joint import SegmentJoints, read_joints
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name, require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment
from wal_pipeline.wal.timeline import TimelineHistory

_QUARANTINED: Final = re.compile(r"(?P<name>.+)\.\d{8}T\d{6}\.\d+Z(?:\.\d+)?\Z")
_MAX_BYTES: Final = 1 << 20


@dataclass(slots=True)
class RefusedFiles:
    """The histories by timeline, and the segments by name, that were refused.

    A segment is the path in quarantine, which is read only where a file comes that may continue it, or the joints of
    one that stays in the spool.
    """

    histories: dict[int, list[TimelineHistory]] = field(default_factory=dict)
    segments: dict[str, list[Path | SegmentJoints]] = field(default_factory=dict)

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
            self.segments.setdefault(name.name, []).append(path)
        elif name.kind is FileKind.HISTORY:
            history = _read_history(name, path)
            if history is not None:
                self.histories.setdefault(name.timeline, []).append(history)

    def add_held(self, file: WalFile) -> None:
        """Note a segment that stays in the spool."""
        if file.joints is not None:
            self.segments.setdefault(file.name, []).append(file.joints)

    def others(self, timeline: int, archived: TimelineHistory | None) -> list[TimelineHistory]:
        """Return the refused histories of a timeline of which another is archived; none where None is.

        Earlier versions moved histories to quarantine for other reasons.
        """
        if archived is None:
            return []
        return [one for one in self.histories.get(timeline, ()) if one.switches != archived.switches]

    def may_continue(self, before: str, file: WalFile) -> bool:
        """Say whether a segment may continue a refused one of the name ``before``.

        Half a segment, as a crash leaves one, is no history, and nothing continues it.
        """
        ends = [joints.ends for one in self.segments.get(before, ()) if (joints := _joints(before, one)) is not None]
        begins = None if file.joints is None else file.joints.begins
        return any(end is None or begins is None or end.fits(begins) for end in ends)


def _joints(name: str, refused: Path | SegmentJoints) -> SegmentJoints | None:
    if isinstance(refused, SegmentJoints):
        return refused
    try:
        data, file = refused.read_bytes(), require_file_name(name)
        return read_joints(data, check_segment(file, data[:LONG_HEADER_BYTES], len(data), None), file.timeline)
    except (OSError, InvalidWalFileError):
        return None


def _read_history(name: WalFileName, path: Path) -> TimelineHistory | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        return TimelineHistory.parse(name.timeline, path.read_bytes())
    except (OSError, InvalidWalFileError):
        return None
