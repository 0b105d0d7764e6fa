"""Extracts a base backup's tar, safely: nothing is ever written outside the folder that was named."""

import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from wal_pipeline.archive.format.base_backup.tar_cuts import TarCut
from wal_pipeline.commands.restore.byte_pipe import Producer, relayed
from wal_pipeline.commands.restore.places.disk_flush import EarlyWriting
from wal_pipeline.errors import RestoreError
from wal_pipeline.host.mounts import LOST_AND_FOUND

PG_CONTROL: Final = "global/pg_control"
HELD_BACK: Final = "global/pg_control.wal-pipeline-restore"
_MODE_LIMIT: Final = 0o750  # PostgreSQL starts with 0700 or, where the cluster lets its group read, 0750
_FILE_TYPES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)


Leaves = Callable[[str], bool]


def _nothing(_name: str) -> bool:
    return False


def untar(produce: Producer, folder: Path, leaves: Leaves = _nothing) -> None:
    """Extract the tar whose bytes ``produce`` passes to its sink, in a thread of its own.

    ``global/pg_control`` is put under another name, so that no server can start on a folder that is not complete.
    What PostgreSQL writes needs no extended headers (tar.c: tarCreateHeader), so that they are refused too.
    Files of which ``leaves`` is true are passed over.

    Raises: RestoreError for a tar that is damaged or would write elsewhere, and whatever ``produce`` raises.
    """
    with relayed(produce, "open-base-backup") as chunks:
        _Extraction(_Blocks(chunks), folder, leaves).run()


def untar_volume(
    produce: Producer, folder: Path, begins: TarCut | None, leaves: Leaves = _nothing, *, last: bool
) -> TarCut | None:
    """Extract one volume of a tar, beside the others and in any order; return where it ends.

    ``begins`` is where the volume before it ends: within a member, or between two (None). Whoever extracts all volumes
    compares what each returned with where the next began. Raises: as ``untar``.
    """
    with relayed(produce, "open-base-backup") as chunks:
        return _Extraction(_Blocks(chunks, may_end=not last), folder, leaves, alone=False).run(begins)


class _Blocks:
    """The tar's bytes: read in whole blocks, and handed on without a copy where they are a file's."""

    def __init__(self, chunks: Iterator[bytes], *, may_end: bool = False) -> None:
        """``may_end``: another volume follows, so that these may end between two headers or within a member."""
        self._chunks = chunks
        self._may_end = may_end
        self._view = memoryview(b"")

    def header(self) -> bytes:
        """Return the next block; nothing where the volume ends. Raises: RestoreError where there is none."""
        if self._may_end and not self._next():
            return b""
        block = b"".join(self.content(tarfile.BLOCKSIZE))
        if len(block) < tarfile.BLOCKSIZE:
            raise _cut_short()
        return block

    def content(self, size: int) -> Iterator[memoryview]:
        """Yield the next ``size`` bytes in pieces, fewer where the volume ends.

        Raises: RestoreError where it may not end yet.
        """
        while size:
            piece = self._next()[:size]
            if not piece:
                if self._may_end:
                    return
                raise _cut_short()
            self._view = self._view[len(piece) :]
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> int:
        """Pass over the next ``size`` bytes and return how many there were."""
        return sum(len(piece) for piece in self.content(size))

    def drain(self) -> None:
        """Take the padding after the tar's end, so that its hash covers all bytes."""
        while self._next():
            self._view = memoryview(b"")

    def _next(self) -> memoryview:
        while not self._view and (chunk := next(self._chunks, None)) is not None:
            self._view = memoryview(chunk)
        return self._view


def _cut_short() -> RestoreError:
    return RestoreError("the base backup's tar is damaged: it was cut short")


class _Extraction:
    """One tar, or one volume of it, on its way into a folder. ``alone``: nobody else writes any of its files."""

    def __init__(self, blocks: _Blocks, folder: Path, leaves: Leaves, *, alone: bool = True) -> None:
        self._blocks = blocks
        self._leaves = leaves
        self._folder = folder
        self._flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if alone else 0)
        self._made: set[Path] = set()

    def run(self, begins: TarCut | None = None) -> TarCut | None:
        """Extract it all, from within the member ``begins``; return within which member it ends."""
        try:
            cut = self._continue(begins) if begins is not None else None
            while cut is None and (member := self._next_member()) is not None:
                cut = self._extract(member)
        except OSError as error:
            raise RestoreError(f"'{error.filename or self._folder}' cannot be written: {error.strerror}") from error
        self._blocks.drain()
        return cut

    def _continue(self, cut: TarCut) -> TarCut | None:
        path = self._path(cut.name)
        if self._leaves(cut.name):
            return self._pass_over(cut)
        self._make_folder(path.parent)
        return self._write(cut, path, None)

    def _next_member(self) -> tarfile.TarInfo | None:
        """Return the next member; None at the block of zeros that ends a tar, and at the volume's end."""
        block = self._blocks.header()
        if not block:
            return None
        try:
            member = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None
        except tarfile.TarError as error:
            raise RestoreError(f"the base backup's tar is damaged: {error}") from error
        if member.size < 0:
            raise RestoreError(f"the base backup's tar is damaged: '{member.name}' has {member.size} bytes")
        return member

    def _path(self, name: str) -> Path:
        path = self._folder / safe_name(name)
        return self._folder / HELD_BACK if path == self._folder / PG_CONTROL else path

    def _extract(self, member: tarfile.TarInfo) -> TarCut | None:
        path = self._path(member.name)
        if member.isdir() and not member.size:
            if path == self._folder / LOST_AND_FOUND and path.is_dir():
                return None  # the file system's own, where the original had one too
            self._make_folder(path)
            path.chmod((member.mode & _MODE_LIMIT) | 0o700)
            return None
        if member.type in _FILE_TYPES and self._leaves(member.name):
            return self._pass_over(TarCut(member.name, member.size, 0))
        if member.type in _FILE_TYPES:
            self._make_folder(path.parent)
            return self._write(TarCut(member.name, member.size, 0), path, member.mode)
        raise RestoreError(
            f"the base backup's tar holds '{member.name}' of type {member.type!r}, expected only files and folders"
        )

    def _make_folder(self, path: Path) -> None:
        if path not in self._made:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._made.add(path)

    def _write(self, cut: TarCut, path: Path, mode: int | None) -> TarCut | None:
        """Write a file from where it was cut, and pass over its padding; return where the volume ends within it."""
        offset = cut.offset_bytes
        descriptor = os.open(path, self._flags, 0o600)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            early = EarlyWriting(descriptor, offset)
            for piece in self._blocks.content(cut.size_bytes - offset):
                begun = time.thread_time()
                _write_all(descriptor, piece, path)
                offset += len(piece)
                early.wrote(len(piece), time.thread_time() - begun)
            early.end()
            if mode is not None:
                os.fchmod(descriptor, (mode & _MODE_LIMIT & ~0o111) | 0o600)
        finally:
            os.close(descriptor)
        cut = replace(cut, offset_bytes=offset)
        return self._pass_over(cut) if offset >= cut.size_bytes else cut

    def _pass_over(self, cut: TarCut) -> TarCut | None:
        """Pass over the rest of a file and its padding; return where the volume ends within them."""
        end = cut.size_bytes + -cut.size_bytes % tarfile.BLOCKSIZE
        offset = cut.offset_bytes + self._blocks.skip(end - cut.offset_bytes)
        return None if offset == end else replace(cut, offset_bytes=offset)


def _write_all(descriptor: int, data: memoryview, path: Path) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        error.filename = str(path)  # a full disk is said of the file
        raise


def safe_name(name: str) -> str:
    """Return a member's name where it stays below the folder.

    Raises: RestoreError.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise RestoreError(f"the base backup's tar holds the name '{name}', expected one below the data directory")
    return "/".join(parts)


def release_pg_control(pgdata: Path) -> None:
    """Give ``global/pg_control`` its name: from now on a server can start on the folder. Raises: RestoreError."""
    try:
        (pgdata / HELD_BACK).replace(pgdata / PG_CONTROL)
    except OSError as error:
        raise RestoreError(f"the base backup has no file '{PG_CONTROL}'") from error


def hold_back_pg_control(pgdata: Path) -> None:
    """Take the name away again: the folder turned out not to be right."""
    with suppress(OSError):
        (pgdata / PG_CONTROL).replace(pgdata / HELD_BACK)
