"""Joins decoded segments: records that cross from one into the next, and places where nothing can be joined."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from wal_pipeline.commands.find.read_ahead import DecodedPart
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.records.assemble import CommitBlock, TransactionAssembler
from wal_pipeline.wal.records.changes import count_changes
from wal_pipeline.wal.records.decode import UnfinishedRecord, join_record


@dataclass(slots=True)
class PartChain:
    """Takes parts in order and gives the commits in them. ``holes`` say which WAL is missing between them."""

    assembler: TransactionAssembler = field(default_factory=TransactionAssembler)
    holes: list[str] = field(default_factory=list)
    _last_lsn: int | None = None
    _unfinished: UnfinishedRecord | None = None

    def add(self, decoded: DecodedPart) -> Iterator[CommitBlock]:
        """Take the next part."""
        if decoded.part.hole is not None:
            self._break(decoded.part.hole)
        if decoded.changes is None:
            self._break(decoded.fault or f"'{decoded.part.name.name}' could not be read")
            return
        if decoded.gives_up:
            self._unfinished = None
        if self._unfinished is not None:
            yield from self._join(self._unfinished, decoded)
        found, expected = decoded.first_previous, self._last_lsn
        if found is not None and expected is not None and self._unfinished is None and found != expected:
            name = decoded.part.name.name
            self._break(
                f"'{name}' continues a record at {Lsn(found)}, but the last one before it is at {Lsn(expected)}"
            )
        yield self.assembler.add(decoded.changes)
        self._end_part(decoded)

    def _join(self, unfinished: UnfinishedRecord, decoded: DecodedPart) -> Iterator[CommitBlock]:
        """Give the record that began in an earlier part, where it ends in this one."""
        joined = join_record(unfinished, decoded.head)
        if isinstance(joined, UnfinishedRecord):
            self._unfinished = joined
            return
        self._unfinished = None
        if self._last_lsn is not None and int(joined.previous[0]) != self._last_lsn:
            self._break(f"the record at {Lsn(int(joined.lsns[0]))} does not follow the one before it")
        self._last_lsn = int(joined.lsns[0])
        yield self.assembler.add(count_changes(joined, decoded.server_major))

    def _end_part(self, decoded: DecodedPart) -> None:
        if decoded.last_lsn is not None:
            self._last_lsn = decoded.last_lsn
        if decoded.unfinished is not None:
            self._unfinished = decoded.unfinished
        if not decoded.is_whole and decoded.part.end_offset is None:
            self._break(f"the records of '{decoded.part.name.name}' end at {decoded.ends}, before the segment's end")

    def _break(self, hole: str) -> None:
        self.holes.append(hole)
        self.assembler.skip()
        self._last_lsn, self._unfinished = None, None
