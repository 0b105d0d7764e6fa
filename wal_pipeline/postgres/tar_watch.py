"""Watches a tar as its bytes pass through: follows its members, and keeps the bytes of a few."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from wal_pipeline.archive.format.base_backup.manifest import BASE_TAR
from wal_pipeline.archive.format.base_backup.tar_cuts import NO_DATABASE, TarCut
from wal_pipeline.archive.format.database_folders import database_of
from wal_pipeline.errors import BaseBackupError

BLOCK_BYTES: Final = 512
_REGULAR: Final = (b"0", b"\0")
Sink = Callable[[bytes], object]


class _Part(Enum):
    HEADER = "header"
    CONTENT = "content"


class TarWatch:
    """Follows the headers of a POSIX tar, in whatever pieces it comes, and hands the named members to their sinks.

    ``sinks`` maps a member's name to the function that takes its bytes. ``seen`` holds the names of the complete ones.
    ``folders`` are the first folders that have members, and the databases' own: ``global``, ``base/5``.
    With ``cut_bytes``, ``cuts`` has an entry for each multiple of it: the member that a cut there divides, or None
    between two members; ``databases`` has the oids of the databases with a part of a member before the first cut,
    between two, and after the last: 0 stands for members of none. ``tar`` is ``base`` or a tablespace's oid.
    """

    def __init__(self, sinks: Mapping[str, Sink], cut_bytes: int | None = None, tar: str = BASE_TAR) -> None:
        if cut_bytes is not None and cut_bytes % BLOCK_BYTES:
            raise ValueError(f"cuts every {cut_bytes} bytes would fall into headers")
        self.seen: set[str] = set()
        self.folders: set[str] = set()
        self.complete = False
        self.cuts: list[TarCut | None] = []
        self.databases: list[set[int]] = [set()]
        self._tar = tar
        self._cut_bytes = cut_bytes
        self._before_cut = cut_bytes or 0
        self._size = 0
        self._sinks = dict(sinks)
        self._part = _Part.HEADER
        self._header = bytearray()
        self._name = ""
        self._left = 0
        self._padding = 0

    def feed(self, data: bytes) -> None:
        """Take the tar's next bytes. Raises: BaseBackupError where they are not a tar."""
        view = memoryview(data)
        while self._cut_bytes is not None and len(view) >= self._before_cut:
            self._follow(view[: self._before_cut])
            view = view[self._before_cut :]
            self._before_cut = self._cut_bytes
            self._note_cut()
        self._before_cut -= len(view)
        self._follow(view)

    def _follow(self, view: memoryview) -> None:
        while view:
            view = self._take_header(view) if self._part is _Part.HEADER else self._take_content(view)

    def _note_cut(self) -> None:
        cut = self._cut()
        self.cuts.append(cut)
        self.databases.append(set())
        if cut is not None:
            self._note_database()

    def _note_database(self) -> None:
        self.databases[-1].add(database_of(self._name, self._tar) or NO_DATABASE)

    def _cut(self) -> TarCut | None:
        if self._part is _Part.HEADER:
            return None
        return TarCut(self._name, self._size, self._size - self._left)

    def _take_header(self, view: memoryview) -> memoryview:
        wanted = BLOCK_BYTES - len(self._header)
        self._header += view[:wanted]
        if len(self._header) == BLOCK_BYTES:
            self._read_header(bytes(self._header))
            self._header.clear()
        return view[wanted:]

    def _read_header(self, header: bytes) -> None:
        if not any(header):
            self.complete = True  # the end of a tar is two blocks of zeros
            return
        _check_sum(header)
        prefix, name = _text(header[345:500]), _text(header[:100])
        self._name = f"{prefix}/{name}" if prefix else name
        self._note_folder()
        self._note_database()
        self._size = self._left = _number(header[124:136]) if header[156:157] in _REGULAR else 0
        self._padding = -self._left % BLOCK_BYTES
        self._part = _Part.CONTENT
        self._end_member()

    def _note_folder(self) -> None:
        first, *rest = self._name.removeprefix("./").split("/", 2)
        self.folders.add(f"base/{rest[0]}" if first == "base" and rest else first)

    def _take_content(self, view: memoryview) -> memoryview:
        content, rest = view[: self._left], view[self._left :]
        sink = self._sinks.get(self._name)
        if sink is not None and content:
            sink(bytes(content))
        self._left -= len(content)
        if self._left == 0:
            skipped = min(self._padding, len(rest))
            self._padding -= skipped
            rest = rest[skipped:]
        self._end_member()
        return rest

    def _end_member(self) -> None:
        if self._left == 0 and self._padding == 0:
            if self._name in self._sinks:
                self.seen.add(self._name)
            self._part = _Part.HEADER


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Read octal digits or, where the first bit is set, a binary number (file sizes of 8 GiB and more)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _check_sum(header: bytes) -> None:
    try:
        expected = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        expected = -1
    if expected != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise BaseBackupError("pg_basebackup's output is not a tar: a header's checksum does not match")
