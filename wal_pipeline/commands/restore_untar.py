"""Take a base backup's tar apart, safely: nothing is ever written outside the folder that was named."""

import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from wal_pipeline.commands.byte_relay import Producer, relayed
from wal_pipeline.errors import RestoreError

PG_CONTROL: Final = "global/pg_control"
HELD_BACK: Final = "global/pg_control.wal-pipeline-restore"
_MODE_LIMIT: Final = 0o750  # PostgreSQL starts with 0700 or, where the cluster lets its group read, 0750
_FILE_TYPES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)


def untar(produce: Producer, folder: Path) -> None:
    """Extract the tar whose bytes ``produce`` passes to its sink, in a thread of its own.

    ``global/pg_control`` is put under another name, so that no server can start on a folder that is not complete.
    What PostgreSQL writes needs no extended headers (tar.c: tarCreateHeader), so that they are refused too.

    Raises: RestoreError for a tar that is damaged or would write elsewhere, and whatever ``produce`` raises.
    """
    with relayed(produce, "open-base-backup") as chunks:
        _Extraction(_Blocks(chunks), folder).run()


class _Blocks:
    """The tar's bytes: read in whole blocks, and handed on without a copy where they are a file's."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._view = memoryview(b"")

    def header(self) -> bytes:
        """Return the next block. Raises: RestoreError where there is none."""
        return b"".join(self.content(tarfile.BLOCKSIZE))

    def content(self, size: int) -> Iterator[memoryview]:
        """Yield the next ``size`` bytes in pieces. Raises: RestoreError where there are fewer."""
        while size:
            piece = self._next()[:size]
            if not piece:
                raise RestoreError("the base backup's tar is damaged: it was cut short")
            self._view = self._view[len(piece) :]
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        for _ in self.content(size):
            pass

    def drain(self) -> None:
        """Take the padding after the tar's end, so that whoever hashes it sees all."""
        while self._next():
            self._view = memoryview(b"")

    def _next(self) -> memoryview:
        while not self._view and (chunk := next(self._chunks, None)) is not None:
            self._view = memoryview(chunk)
        return self._view


class _Extraction:
    """One tar on its way into a folder."""

    def __init__(self, blocks: _Blocks, folder: Path) -> None:
        self._blocks = blocks
        self._folder = folder
        self._made: set[Path] = set()

    def run(self) -> None:
        while (member := self._next_member()) is not None:
            try:
                self._extract(member)
            except OSError as error:
                raise RestoreError(f"'{error.filename or self._folder}' cannot be written: {error.strerror}") from error
        self._blocks.drain()

    def _next_member(self) -> tarfile.TarInfo | None:
        """Return the next member; None at the block of zeros that ends a tar."""
        block = self._blocks.header()
        try:
            member = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None
        except tarfile.TarError as error:
            raise RestoreError(f"the base backup's tar is damaged: {error}") from error
        if member.size < 0:
            raise RestoreError(f"the base backup's tar is damaged: '{member.name}' has {member.size} bytes")
        return member

    def _extract(self, member: tarfile.TarInfo) -> None:
        path = self._folder / safe_name(member.name)
        if path == self._folder / PG_CONTROL:
            path = self._folder / HELD_BACK
        if member.isdir():
            self._make_folder(path)
            path.chmod((member.mode & _MODE_LIMIT) | 0o700)
            self._skip_to_next(member, left=member.size)
        elif member.type in _FILE_TYPES:
            self._make_folder(path.parent)
            self._write(member, path)
            self._skip_to_next(member, left=0)
        else:
            raise RestoreError(
                f"the base backup's tar holds '{member.name}' of type {member.type!r}, expected only files and folders"
            )

    def _make_folder(self, path: Path) -> None:
        if path not in self._made:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._made.add(path)

    def _write(self, member: tarfile.TarInfo, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            for piece in self._blocks.content(member.size):
                _write_all(descriptor, piece, path)
            os.fchmod(descriptor, (member.mode & _MODE_LIMIT & ~0o111) | 0o600)
        finally:
            os.close(descriptor)

    def _skip_to_next(self, member: tarfile.TarInfo, left: int) -> None:
        self._blocks.skip(left + -member.size % tarfile.BLOCKSIZE)


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
