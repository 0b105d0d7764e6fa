"""Holds back what must not be archived under a name that belongs to other WAL: another server's, or another size's."""

from pathlib import Path
from typing import Final

from wal_pipeline.archive.records import WalFile
from wal_pipeline.archive.recovery.continuity import history_fault, joint_fault, switch_fits
from wal_pipeline.archive.recovery.timeline_path import follow
from wal_pipeline.commands.continuity.archived import ArchivedWal
from wal_pipeline.commands.continuity.refused import RefusedFiles
from wal_pipeline.text import coarse_size
from wal_pipeline.wal.names import FileKind, WalFileName, history_name, require_file_name, segment_name
from wal_pipeline.wal.timeline import TimelineHistory

WAY_OUT: Final = (
    "two servers archive under one name: stop the one that is not wanted, or give this one an archive of its own "
    "with another cluster name (WAL_PIPELINE_CLUSTER) and a base backup"
)
SIZE_WAY_OUT: Final = (
    "the server's segment size was changed, and the same names stand for other WAL; give the server a cluster name of "
    "its own (WAL_PIPELINE_CLUSTER) and take a base backup there"
)


class ContinuityGuard:
    """Judges each file of one archiving run before it is stored.

    ``look_up`` may be called from any thread; all else is called from the run's own. Files are judged in WAL order:
    see ``waits_for``.
    """

    def __init__(self, archived: ArchivedWal, spool_folder: Path, quarantine_folder: Path) -> None:
        self._archived = archived
        self._spool_folder = spool_folder
        self._refused = RefusedFiles.of(quarantine_folder)
        self._texts: dict[str, bytes] = {}
        self._begun: set[int] = set()

    def open(self, system_identifier: int) -> None:
        """Read what the catalog knows of a cluster. Raises: CatalogError."""
        self._archived.cluster(system_identifier)

    def look_up(self, file: WalFile) -> None:
        """Find out what the archive holds beside a file, where the run does not know it. Raises: CatalogError."""
        if file.kind is FileKind.HISTORY:
            self._texts[file.name] = _read(self._spool_folder / file.name)
        if file.kind is not FileKind.SEGMENT or file.joints is None:
            return
        identifier = file.system_identifier
        known = self._archived.cluster(identifier)
        self._archived.look_up_segment_size(identifier)
        is_new = file.timeline not in known.newest or file.joints.first_timeline != file.timeline
        if is_new and not (self._spool_folder / history_name(file.timeline).name).exists():
            self._archived.look_up_history(identifier, file.timeline)
        before = self._before(file)
        if before is not None and not (self._spool_folder / before.name).exists():
            self._archived.look_up(identifier, before.name, opened=before.name in self._refused.segments)

    def waits_for(self, file: WalFile) -> tuple[str, ...]:
        """Return the files that are judged before this one, where they are on their way too."""
        if file.kind is not FileKind.SEGMENT:
            return ()
        before = self._before(file)
        history = (history_name(file.timeline).name,) if file.timeline > 1 else ()
        return history if before is None else (*history, before.name)

    def is_known(self, file: WalFile) -> bool:
        """Whether this run goes on where the archive ends: else each file is proven before the next is judged.

        Until a store took a segment of the timeline that it did not have, what the catalog knows may be older than the
        archive: it was lost, or set back together with the server, which writes archived names anew.
        """
        return file.timeline in self._begun and not self._refused.others(file.timeline, self._history(file))

    def note_new(self, file: WalFile) -> None:
        """Note that a store took a file that it did not have."""
        if file.kind is FileKind.SEGMENT:
            self._begun.add(file.timeline)

    def judge(self, file: WalFile) -> str | None:
        """Return why a file must not be archived; None where nothing speaks against it. Raises: CatalogError."""
        if file.kind is not FileKind.SEGMENT:
            return None
        reason = self.size_fault(file) or self._fault(file)
        if reason is None:
            self._archived.note_coming(file)
        else:
            self._refused.add_held(file)
        return reason

    def note_proved(self, file: WalFile) -> None:
        """Note that a store has a verified copy of a file. Raises: CatalogError."""
        if file.kind is FileKind.HISTORY:
            content = self._texts.pop(file.name, b"")
            if content:
                history = TimelineHistory.parse(file.timeline, content)
                self._archived.keep_history(file.system_identifier, history, content)
            return
        self._archived.note(file)
        if file.joints is not None and file.joints.begins is not None and file.joints.begins.is_new_beginning:
            self._note_new_beginning(file)

    def save(self) -> None:
        """Write what is new into the catalog. Raises: CatalogError."""
        self._archived.save()

    def note_refused(self, name: WalFileName, path: Path) -> None:
        """Note a file that went into quarantine because the archive holds other content under its name."""
        self._refused.add(name, path)
        self._archived.forget(name)

    def _note_new_beginning(self, file: WalFile) -> None:
        before = self._before(file)
        if before is not None and self._archived.joints(file.system_identifier, before.name) is not None:
            reason = f"its WAL was begun anew, as pg_resetwal does: it does not continue '{before.name}'"
            self._archived.note_break(file, reason)

    def size_fault(self, file: WalFile) -> str | None:
        """Return why a segment of another size than the archive's must not be archived. Raises: CatalogError."""
        known = self._archived.cluster(file.system_identifier).wal_segment_size
        if known is None or file.wal_segment_size in (known, None):
            return None
        return (
            f"'{file.name}' is a segment of {coarse_size(file.wal_segment_size or 0)}, the archive of system "
            f"identifier {file.system_identifier} has segments of {coarse_size(known)}: {SIZE_WAY_OUT}"
        )

    def _fault(self, file: WalFile) -> str | None:
        """Compare a segment with the history that is archived, with the segment before, and with what was refused."""
        if file.joints is None:
            return None
        history = self._history(file)
        fault = history_fault(file, history)
        if fault is not None:
            return f"'{file.name}' cannot be archived: {fault}; {WAY_OUT}"
        before = self._before(file)
        joints = None if before is None else self._archived.joints(file.system_identifier, before.name)
        fault = None if before is None or joints is None else joint_fault(before.name, joints, file.joints)
        if fault is not None and not _is_new_beginning(file):
            return f"'{file.name}' cannot be archived: {fault}; {WAY_OUT}"
        if before is None or (fault is None and joints is not None and self._proves(file, before, history)):
            return None
        return self._belongs_to_refused(file, before, history)

    def _proves(self, file: WalFile, before: WalFileName, history: TimelineHistory | None) -> bool:
        """Say whether the archived segment before, which the file continues, makes it the archive's.

        The segment before a switch is the same for all servers that were promoted: then the switch itself must fit.
        """
        joints = self._archived.joints(file.system_identifier, before.name)
        ends, begins = (None if joints is None else joints.ends), (None if file.joints is None else file.joints.begins)
        known = ends is not None and begins is not None and ends.proves(begins)
        if before.timeline == file.timeline:
            return known
        others = self._refused.others(file.timeline, history)
        if not others:
            return known
        own = file.joints is not None and history is not None and switch_fits(file.joints, history)
        return known and own and not any(file.joints and switch_fits(file.joints, one) for one in others)

    def _belongs_to_refused(self, file: WalFile, before: WalFileName, history: TimelineHistory | None) -> str | None:
        others = self._refused.others(file.timeline, history)
        if others:
            return (
                f"'{file.name}' cannot be archived: the history file of timeline {file.timeline} that came with it was "
                f"refused: {_switch(others[-1])}, by the archive's {_switch(history)}; {WAY_OUT}"
            )
        if self._refused.may_continue(before.name, file):
            return (
                f"'{file.name}' cannot be archived: nothing shows that it continues the archive's '{before.name}', and "
                f"the one that came before it was refused; {WAY_OUT}"
            )
        return None

    def _history(self, file: WalFile) -> TimelineHistory | None:
        return self._archived.cluster(file.system_identifier).histories.get(file.timeline)

    def _before(self, file: WalFile) -> WalFileName | None:
        """Return the segment before a file on its timeline's path."""
        size, name = file.wal_segment_size, require_file_name(file.name)
        if size is None or file.joints is None or name.number(size) == 0:
            return None
        number = name.number(size) - 1
        history = self._history(file)
        if (history is None or not history.switches) and file.joints.first_timeline != file.timeline:
            return segment_name(file.joints.first_timeline, number, size)
        return segment_name(follow(history, file.timeline, size).owner(number), number, size)


def _is_new_beginning(file: WalFile) -> bool:
    return file.joints is not None and file.joints.begins is not None and file.joints.begins.is_new_beginning


def _switch(history: TimelineHistory | None) -> str:
    if history is None or not history.switches:
        return "it is not known"
    return f"it leaves timeline {history.switches[-1].parent} at {history.switches[-1].lsn}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
