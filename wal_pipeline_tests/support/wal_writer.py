"""Writes WAL pages as PostgreSQL lays them out, with records of chosen lengths: for tests that need no server."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER

MIB = 1 << 20
BLOCK = 8192
_PAGE = struct.Struct("<HHIQIxxxx")
_LONG = struct.Struct("<HHIQIxxxxQII")
_RECORD = struct.Struct("<IIQBBxxI")


@dataclass
class WalWriter:
    """A server's WAL from ``first`` on: call ``record`` and ``switch``, then ``segments``.

    ``position`` is where the next record begins. ``timeline`` may be raised at any time, as a promotion does.
    """

    first: int = 1
    timeline: int = 1
    system_identifier: int = SYSTEM_IDENTIFIER
    previous: int = 0
    _data: bytearray = field(default_factory=bytearray)
    _joints: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def position(self) -> Lsn:
        """Where the next record begins."""
        offset = len(self._data)
        if offset % BLOCK == 0:
            offset += 40 if offset % MIB == 0 else 24
        return Lsn(self.first * MIB + offset)

    def record(self, length: int, *, info: int = 0x10, rmid: int = 10) -> Lsn:
        """Write a record of ``length`` bytes (24 or more) and return its LSN."""
        self._open_page(0)
        at = self.first * MIB + len(self._data)
        body = _RECORD.pack(length, 7, self.previous, info, rmid, 0x1234)
        body += bytes([0x41 + length % 7]) * (length - len(body))
        while body:
            room = BLOCK - len(self._data) % BLOCK
            self._data += body[:room]
            body = body[room:]
            if body:
                if len(self._data) % MIB == 0:
                    self._joints[self.first + len(self._data) // MIB - 1] = (at, len(body))
                self._open_page(len(body))
        self.previous = at
        self._data += bytes(-len(self._data) % 8)
        if len(self._data) % MIB == 0:
            self._joints[self.first + len(self._data) // MIB - 1] = (at, 0)
        return Lsn(at)

    def switch(self) -> None:
        """Write the record that ends a segment, and fill the segment with zeros."""
        at = self.record(24, info=0x40, rmid=0)
        if len(self._data) % MIB:
            self._joints[self.first + len(self._data) // MIB] = (at, 0)
        self._data += bytes(-len(self._data) % MIB)

    def segments(self) -> Iterator[tuple[int, bytes]]:
        """Yield the numbers and bytes of the segments that are whole."""
        for index in range(len(self._data) // MIB):
            yield self.first + index, bytes(self._data[index * MIB : (index + 1) * MIB])

    def joint_after(self, number: int) -> tuple[int, int] | None:
        """Return the last record that begins before the end of a segment, and how many of its bytes come after."""
        return self._joints.get(number)

    def fork(self, timeline: int) -> "WalWriter":
        """Return a server that has the same WAL so far and goes on on another timeline: a promoted standby."""
        return WalWriter(
            self.first, timeline, self.system_identifier, self.previous, bytearray(self._data), dict(self._joints)
        )

    def _open_page(self, rest: int) -> None:
        offset = len(self._data)
        if offset % BLOCK:
            return
        flags, address = 0x0001 if rest else 0, self.first * MIB + offset
        if offset % MIB == 0:
            self._data += _LONG.pack(
                0xD118, flags | 2, self.timeline, address, rest, self.system_identifier, MIB, BLOCK
            )
        else:
            self._data += _PAGE.pack(0xD118, flags, self.timeline, address, rest)
