"""A data directory without PostgreSQL, and the few answers that a base backup of the method ``local`` asks for.

With it a test takes hundreds of base backups by the program's own code. What a real server's files do while they are
read is tested on real servers (commands/backup/local/test_session.py).
"""

import os
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import google_crc32c

from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.postgres.backup_server import BackupServer, ServerTablespace
from wal_pipeline.postgres.server_facts import ServerFacts
from wal_pipeline.postgres.session import LongSession
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, name_of
from wal_pipeline_tests.support.server_facts import facts

DATABASE = 5
PAGE_BYTES = 8192
_BLOCKS = 131072
_HEADER = struct.Struct("=IIHHHHHHI")  # bufpage.h: PageHeaderData
_TOOK = timedelta(minutes=3)


class FolderServer(BackupServer):
    """Answers as a server of PostgreSQL 18 whose data directory is ``pgdata``.

    A base backup begins in the segment ``segment``, at the time of ``clock``. ``lsn`` is where WAL is written now.
    """

    def __init__(self, pgdata: Path, clock: Callable[[], datetime]) -> None:
        super().__init__("host=127.0.0.1 port=1")  # nobody may connect
        self.pgdata = pgdata
        self.segment = 1
        self.clock = clock
        for folder in ("global", "pg_xact", "pg_multixact", f"base/{DATABASE}", "pg_tblspc", "pg_wal"):
            (pgdata / folder).mkdir(parents=True)
        (pgdata / "PG_VERSION").write_bytes(b"18\n")
        (pgdata / "global" / "pg_control").write_bytes(control_file())

    @property
    def lsn(self) -> Lsn:
        return Lsn(self.segment * SEGMENT_BYTES + 0x100)

    def write_relation(self, name: int, pages: int, filling: bytes, *, lsn: Lsn | None = None) -> Path:
        """Write the first file of a relation, all of its pages changed at ``lsn``, by default now."""
        at = self.lsn if lsn is None else lsn
        header = _HEADER.pack(at >> 32, at & 0xFFFFFFFF, 0, 0, 24, PAGE_BYTES, PAGE_BYTES, PAGE_BYTES | 4, 0)
        body = (filling * (PAGE_BYTES // len(filling) + 1))[: PAGE_BYTES - len(header)]
        path = self.pgdata / "base" / str(DATABASE) / str(name)
        path.write_bytes((header + body) * pages)
        seconds = self.clock().timestamp()
        os.utime(path, (seconds, seconds))
        return path

    def files(self) -> dict[str, bytes]:
        """Return the content of each file by its name."""
        found = (path for path in self.pgdata.rglob("*") if path.is_file())
        return {path.relative_to(self.pgdata).as_posix(): path.read_bytes() for path in found}

    # The answers

    def facts(self) -> ServerFacts:
        return facts(
            system_identifier=SYSTEM_IDENTIFIER,
            wal_segment_size=SEGMENT_BYTES,
            wal_lsn=self.lsn,
            data_directory=str(self.pgdata),
            data_checksums=False,
        )

    def tablespaces(self) -> tuple[ServerTablespace, ...]:
        return ()

    def databases(self) -> frozenset[int]:
        return frozenset((DATABASE,))

    def outside_configuration(self) -> tuple[KeptConfiguration | None, tuple[str, ...]]:
        return None, ()

    def open_long_session(self, purpose: str) -> LongSession:  # noqa: ARG002 - there is no log of it
        return _Session(self._row)  # type: ignore[return-value]

    def _row(self, statement: str) -> Mapping[str, Any]:
        start, stop = (Lsn(self.segment * SEGMENT_BYTES + offset) for offset in (0x28, 0x120))
        if "pg_backup_stop" in statement:
            label = f"START WAL LOCATION: {start} (file {name_of(self.segment)})\nSTART TIMELINE: 1\n".encode()
            return {"lsn": str(stop), "label": label, "map": b"", "finished_at": self.clock() + _TOOK}
        if "pg_backup_start" in statement:
            return {"lsn": str(start)}
        if "timeline_id" in statement:
            return {"timeline": 1}
        return {
            "major": 18,
            "system_identifier": SYSTEM_IDENTIFIER,
            "in_recovery": False,
            "block_size": PAGE_BYTES,
            "blocks_per_segment": _BLOCKS,
            "has_checksums": False,
            "started_at": self.clock(),
        }


class _Session:
    """Stands for a kept connection."""

    def __init__(self, row: Callable[[str], Mapping[str, Any]]) -> None:
        self._row = row

    def ask(self, question: Callable[[Any], Any]) -> Any:
        return question(self)

    def cursor(self, **_: object) -> "AbstractContextManager[_Cursor]":
        return nullcontext(_Cursor(self._row))

    def close(self) -> None:
        """Nothing is open."""


class _Cursor:
    def __init__(self, row: Callable[[str], Mapping[str, Any]]) -> None:
        self._row = row
        self._found: list[dict[str, Any]] = []

    def execute(self, statement: bytes, _parameters: object) -> "_Cursor":
        self._found = [dict(self._row(statement.decode()))]
        return self

    def fetchall(self) -> list[dict[str, Any]]:
        return self._found


def control_file() -> bytes:
    """Return a control file of PostgreSQL 18 with a right checksum (pg_control.h: ControlFileData)."""
    start = struct.pack("<QIIIxxxxqQ", SYSTEM_IDENTIFIER, 1800, 202506291, 6, 0, 0)
    data = start + bytes(range(1, 241))
    return (data + struct.pack("=I", google_crc32c.value(data))).ljust(PAGE_BYTES, b"\0")
