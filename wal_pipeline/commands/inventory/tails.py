"""Reads pieces for a plan: what they say of themselves, and whether what they begin with continues the archive."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from wal_pipeline.archive.records import WalFile
from wal_pipeline.archive.recovery.continuity import history_fault, joint_fault
from wal_pipeline.archive.recovery.coverage import ArchiveContents
from wal_pipeline.archive.recovery.restore_plan import RestorePlan
from wal_pipeline.archive.recovery.tail import HeldPiece, JoinedTail
from wal_pipeline.commands.archive_get.tail_wal import FetchedTail, PiecesGoneError, fetch_tail
from wal_pipeline.commands.archive_get.wal_source import WalSource
from wal_pipeline.commands.copies.pieces import describe_pieces
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.joint import SegmentJoints, read_joints
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header

_LARGEST_OPENED: Final = 64 << 20
_MOST_LOOKS: Final = 4


def read_tails_of(
    listings: Mapping[str, StoreListing], places: Mapping[str, ClusterStore]
) -> tuple[list[HeldPiece], list[str]]:
    """Return the pieces that can matter to a recovery from any of the stores, and what could not be read.

    A segment that each of the stores has whole needs no pieces: those that are left of it are not asked for.
    """
    found: list[HeldPiece] = []
    notes: list[str] = []
    whole = frozenset.intersection(*(frozenset(one.wal) for one in listings.values())) if listings else frozenset()
    for store, listing in listings.items():
        keys = [item.key for name, items in listing.pieces.items() if name not in whole for item in items]
        try:
            pieces, faults = describe_pieces(places[store], keys)
        except StoreError as error:
            notes.append(f"{error.message}: its pieces of unfinished segments are left out of the plan")
        else:
            found += pieces
            notes += [f"{fault.message}: this piece is left out of the plan" for fault in faults]
    return found, notes


@dataclass(slots=True)
class TailReader:
    """Opens the segments that a plan makes from pieces, each once: they must be whole, and continue what is archived.

    Pieces say nothing of the record with which they begin, so their first pages are read.
    """

    source: WalSource
    _opened: dict[str, tuple[JoinedTail, SegmentJoints | None]] = field(default_factory=dict)

    def breaks_in(self, plan: RestorePlan, contents: ArchiveContents) -> dict[str, str]:
        """Return the plan's tails that do not continue the segment before them, with the reason.

        Raises: PiecesDamagedError, where a plan without the damaged pieces has to be made; WalUnreachableError.
        """
        tails = {tail.segment.name: tail for tail in plan.tails}
        found: dict[str, str] = {}
        before: WalFile | None = None
        for name in (file.name for file in plan.wal):
            if name not in tails:
                before = contents.files.get(name)
                continue
            record = tails[name].record(self._joints(tails[name]))
            reason = history_fault(record, contents.histories.get(record.timeline))
            if reason is None and before is not None:
                reason = joint_fault(before.name, before.joints, record.joints)
            if reason is not None:
                found[name] = reason
            before = record
        return found

    def _joints(self, tail: JoinedTail) -> SegmentJoints | None:
        """Return what a tail begins with and, where it is a whole segment, ends with; None where it is not known."""
        name = tail.segment.name
        known = self._opened.get(name)
        if known is None or known[0] != tail:
            self._opened[name] = known = tail, self._read(tail)
        return known[1]

    def _read(self, tail: JoinedTail) -> SegmentJoints | None:
        fetched = self._fetch(tail)
        is_unread = tail.pieces[0].piece.server_major is None or tail.end_offset < LONG_HEADER_BYTES
        if fetched is None or is_unread or tail.wal_segment_size > _LARGEST_OPENED:
            return None
        data = fetched.wal.data
        header = parse_long_page_header(tail.segment.name, data[:LONG_HEADER_BYTES])
        joints = read_joints(data, header, tail.segment.timeline)
        return joints if tail.is_whole else replace(joints, ends=None, own_from=_own_from(joints, tail))

    def _fetch(self, tail: JoinedTail) -> FetchedTail | None:
        """Read the pieces, again where some were merged meanwhile."""
        for look in range(_MOST_LOOKS):
            try:
                return fetch_tail(self.source, tail.segment, enough=tail.end_offset)
            except PiecesGoneError:
                if look == _MOST_LOOKS - 1:
                    raise
        return None


def _own_from(joints: SegmentJoints, tail: JoinedTail) -> Lsn | None:
    """Return the first page of the segment's own timeline, where it is there."""
    own_from = joints.own_from
    return None if own_from is None or own_from >= tail.end_lsn else own_from
