"""Defines the source of WAL that is not archived yet, which the shipper reads."""

from abc import ABC, abstractmethod
from typing import Self

from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.wal.names import WalFileName
from wal_pipeline.wal.timeline import TimelineHistory


class OpenWal(ABC):
    """A source of flushed WAL, of whole segments and of the open one. Safe from several threads.

    A caller looks, then reads up to what it saw. Bytes that were read once never change: a server that writes other
    bytes at the same place was set back by its disk, or is another one.
    """

    @abstractmethod
    def look(self) -> FlushedWal:
        """Return the position up to which bytes can be read now, and the moment that they are complete for.

        Raises: PostgresError where the server does not answer, or the source cannot be read at all.
        """

    @abstractmethod
    def read(self, segment: WalFileName, from_offset: int, to_offset: int, seen: FlushedWal) -> bytes:
        """Return the bytes of a segment from ``from_offset`` up to, not including, ``to_offset``.

        ``seen`` is the answer of the last look; what is asked for lies before it, on its timeline or on one that led
        to it.

        Raises: SegmentGoneError where the source has that segment no more, or its timeline was left before the bytes
        (look again: it comes as a whole segment, or the next timeline's has its bytes). PostgresError where it cannot
        be read, naming the user of the operating system, or is not what the server flushed.
        """

    @abstractmethod
    def history(self, timeline: int) -> TimelineHistory | None:
        """Return the path that led to a timeline; None where the source does not have its history file.

        Raises: PostgresError where it cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
