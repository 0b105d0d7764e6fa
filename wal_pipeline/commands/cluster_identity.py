"""Decides which system identifiers' WAL is accepted, and which of them is the current one."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import BeingWrittenError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.wal.names import FileKind
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, InvalidSegmentError, check_segment

FIXED_VARIABLE: Final = "WAL_PIPELINE_SYSTEM_IDENTIFIER"
_LOOK_AGAIN_SECONDS: Final = 10.0


class ClusterIdentity:
    """The system identifiers under one cluster's name.

    The live server is asked first: after pg_upgrade it has a new system identifier, and WAL of both is accepted.
    Without a server, the data directory and the known identifiers count; where none is known, the first whole segment
    decides. Only the server is sure: after an upgrade, PGDATA and the setting may still name the cluster before it.
    """

    def __init__(
        self,
        catalog: Catalog,
        ask_server: Callable[[], int | None],
        clock: Callable[[], datetime],
        *,
        fixed: int | None,
        read_folder: Callable[[], int | None] = lambda: None,
    ) -> None:
        """``ask_server`` returns None where the server does not answer. ``fixed`` is the setting: then the only one.

        ``read_folder`` returns that of the data directory, where it can be read.
        """
        self._read_folder = read_folder
        self._is_sure = False
        self._catalog = catalog
        self._ask_server = ask_server
        self._clock = clock
        self._fixed = fixed
        self._known: list[int] = []
        self._current: int | None = None
        self._contradicted_by: int | None = None
        self._looked_again_at: float | None = None

    @property
    def accepted(self) -> frozenset[int]:
        """The system identifiers whose segments are archived; empty until one is known."""
        return frozenset(self._known)

    @property
    def current(self) -> int | None:
        """The system identifier of files without a page header (``.history``, ``.backup``)."""
        return self._current

    @property
    def is_sure(self) -> bool:
        """Whether the live server named the cluster at the last look, and the setting does not contradict it."""
        return self._is_sure

    @property
    def contradiction(self) -> str | None:
        """The live server's system identifier against the setting's, for a message; None where they agree."""
        if self._contradicted_by is None:
            return None
        return f"{FIXED_VARIABLE} is {self._fixed}, the server has {self._contradicted_by}"

    @property
    def of_unnamed(self) -> int | None:
        """The system identifier of files that do not name theirs; None where the setting contradicts the server."""
        return self._current if self._contradicted_by is None else None

    def refresh(self) -> None:
        """Ask the setting, the server and the catalog again."""
        asked = self._ask_server()
        if self._fixed is not None:
            self._known = [self._fixed]
            self._contradicted_by = asked if asked not in (None, self._fixed) else None
            self._is_sure = asked == self._fixed
            self.adopt(self._fixed, "the setting")
            return
        self._known = self._catalog.system_identifiers.known()
        self._is_sure = asked is not None
        if asked is not None:
            self.adopt(asked, "the server")
            return
        found = self._read_folder()
        if found is not None and found not in self._known:
            self.adopt(found, "the data directory")
        elif self._known:
            self._current = self._known[-1]

    def look_again(self) -> None:
        """Refresh, unless the last call was moments ago: a server that is silent must not delay each of many files."""
        now = time.monotonic()
        if self._looked_again_at is None or now - self._looked_again_at > _LOOK_AGAIN_SECONDS:
            self.refresh()
            self._looked_again_at = time.monotonic()

    def adopt(self, system_identifier: int, how: str) -> None:
        """Accept a system identifier, remember it, and make it the current one. Raises: CatalogError."""
        if system_identifier not in self._known:
            self._known.append(system_identifier)
        self._catalog.system_identifiers.add(system_identifier, how, self._clock())
        self._current = system_identifier


def adopt_first_segment(spool: Spool, files: Iterable[SpoolFile], identity: ClusterIdentity) -> bool:
    """Adopt the cluster of the first file that is a whole segment; return False where none is.

    Raises: SpoolError, CatalogError.
    """
    for spooled in files:
        if spooled.name.kind is not FileKind.SEGMENT:
            continue
        try:
            data = spool.read(spooled)
        except BeingWrittenError:
            continue
        if data is None:
            continue
        try:
            header = check_segment(spooled.name, data[:LONG_HEADER_BYTES], len(data), None)
        except InvalidSegmentError:
            continue
        identity.adopt(header.system_identifier, f"segment {spooled.name.name}")
        return True
    return False
