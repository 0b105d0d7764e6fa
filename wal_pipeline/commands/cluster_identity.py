"""Decides which system identifiers' WAL is accepted, and which of them is the current one."""

from collections.abc import Callable, Iterable
from datetime import datetime

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.errors import BeingWrittenError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.wal.names import FileKind
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, InvalidSegmentError, check_segment


class ClusterIdentity:
    """The system identifiers under one cluster's name.

    The live server is asked first: after pg_upgrade it has a new system identifier, and WAL of both is accepted.
    Without a server, the data directory and the known identifiers count; where none is known, the first whole segment
    decides. Only the server and the setting are sure: PGDATA may still name the folder before an upgrade.
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
        """``ask_server`` returns None where the server does not answer. ``fixed``, the setting, is then the only one.

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
        """Whether the setting or the live server named the cluster at the last look."""
        return self._is_sure

    def refresh(self) -> None:
        """Ask the setting, the server and the catalog again."""
        self._known = [self._fixed] if self._fixed is not None else self._catalog.system_identifiers.known()
        asked = self._fixed if self._fixed is not None else self._ask_server()
        self._is_sure = asked is not None
        if asked is not None:
            self.adopt(asked, "the server" if self._fixed is None else "the setting")
            return
        found = self._read_folder()
        if found is not None and found not in self._known:
            self.adopt(found, "the data directory")
        elif self._known:
            self._current = self._known[-1]

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
