"""Says where a segment does not continue what its name promises: another history's WAL, or WAL that was begun anew."""

from collections.abc import Iterable, Mapping

from wal_pipeline.archive.records import WalFile
from wal_pipeline.archive.recovery.timeline_path import TimelinePath
from wal_pipeline.wal.joint import USUAL_BLOCK, Joint, SegmentJoints
from wal_pipeline.wal.names import FileKind, require_file_name
from wal_pipeline.wal.timeline import TimelineHistory


def breaks_among(
    files: Iterable[WalFile],
    segments: Mapping[int, Mapping[int, WalFile]],
    paths: Mapping[int, TimelinePath],
    histories: Mapping[int, TimelineHistory],
) -> dict[str, str]:
    """Return the segments among ``files`` at which a recovery ends though the name is the next one, with the reason.

    A segment counts where its own record and that of the segment before on its path have joints; what has none was
    not compared.
    """
    found: dict[str, str] = {}
    for file in files:
        path = paths.get(file.timeline)
        if file.kind is FileKind.SEGMENT and file.joints is not None and path is not None:
            reason = history_fault(file, histories.get(file.timeline)) or _joint_fault(file, segments, path)
            if reason is not None:
                found[file.name] = reason
    return found


def history_fault(file: WalFile, history: TimelineHistory | None) -> str | None:
    """Say how a segment's pages contradict its timeline's history file; None where they do not, or none is known.

    A timeline begins with a copy of its parent's segment up to the switch. So a first page of an older timeline
    stands only in the segment of a switch, and the first page of the new one just after it.
    """
    if file.joints is None or file.wal_segment_size is None or history is None or not history.switches:
        return None
    start = require_file_name(file.name).start_lsn(file.wal_segment_size)
    expected = history.timeline_at(start)
    name, switch = f"'{history.timeline:08X}.history'", history.switches[-1]
    if start + file.wal_segment_size <= switch.lsn:
        return None  # it lies before the switch, where no recovery asks for this timeline
    if file.joints.first_timeline != expected:
        return (
            f"it begins on timeline {file.joints.first_timeline}, but by {name} timeline {switch.parent} ends at "
            f"{switch.lsn}: it is of another server's timeline {file.timeline}"
        )
    own_from = file.joints.own_from
    if own_from is not None and not switch_fits(file.joints, history):
        return (
            f"timeline {file.timeline} begins in it before {own_from}, by {name} at {switch.lsn}: "
            f"it is of another server's timeline {file.timeline}"
        )
    return None


def joint_fault(name: str, before: SegmentJoints | None, after: SegmentJoints | None) -> str | None:
    """Say how ``after`` does not continue the segment ``name``, which is ``before`` it.

    None where it does, or where nothing tells.
    """
    ends, begins = None if before is None else before.ends, None if after is None else after.begins
    if begins is None:
        return None
    if begins.is_new_beginning:
        return f"its WAL was begun anew, as pg_resetwal does: it does not continue '{name}'"
    if ends is None or ends.fits(begins):
        return None
    return f"it does not continue '{name}': that ends with the record {_shown(ends)}, this follows {_shown(begins)}"


def _joint_fault(file: WalFile, segments: Mapping[int, Mapping[int, WalFile]], path: TimelinePath) -> str | None:
    number = require_file_name(file.name).number(path.wal_segment_size)
    before = segments.get(path.owner(number - 1), {}).get(number - 1) if number > path.stretches[0].first else None
    return None if before is None else joint_fault(before.name, before.joints, file.joints)


def _shown(joint: Joint) -> str:
    record = "that begins earlier" if joint.record is None else f"at {joint.record}"
    return f"{record} and {joint.rest_bytes} bytes of it to come" if joint.rest_bytes else record


def split_runs(runs: Iterable[tuple[int, int]], breaks: Iterable[int]) -> list[tuple[int, int]]:
    """Cut runs before each number of ``breaks``, which ascend."""
    cuts = list(breaks)
    found: list[tuple[int, int]] = []
    for first, last in runs:
        begin = first
        for cut in cuts:
            if begin < cut <= last:
                found.append((begin, cut - 1))
                begin = cut
        found.append((begin, last))
    return found


def switch_fits(joints: SegmentJoints, history: TimelineHistory) -> bool:
    """Say whether a segment in which its timeline begins has that switch where the history file says."""
    own_from = joints.own_from
    return (
        own_from is not None
        and bool(history.switches)
        and own_from - USUAL_BLOCK <= history.switches[-1].lsn <= own_from
    )
