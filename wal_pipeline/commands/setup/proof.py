"""Proves that archiving works: finishes a segment, and follows it into the spool and on to every store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.postgres.server_facts import archiver_trouble

FindCopies = Callable[[str], Mapping[str, bool]]
Progress = Callable[[str], None]
_POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Proof:
    """The way of one segment. Seconds count from the switch; ``missing`` are the stores without a copy."""

    segment: str
    archived_seconds: float | None
    copies: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    message: str = ""

    @property
    def ok(self) -> bool:
        """True where PostgreSQL archived the segment and every store has it."""
        return self.archived_seconds is not None and not self.missing


@dataclass(frozen=True, slots=True)
class ArchivingProver:
    """Proves archiving on one server and one spool.

    ``find_copies`` says for a file's name which stores have a verified copy. ``archive_now`` drains the spool where
    nobody else does; it may find that another process drains it already.
    """

    server: PostgresServer
    spool: Path
    find_copies: FindCopies
    archive_now: Callable[[], None] | None = None
    wait_seconds: float = 60.0
    progress: Progress = lambda _line: None
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def prove(self) -> Proof:
        """Switch to a new WAL file and follow the finished one, at most ``wait_seconds`` for each half of its way.

        Raises: PostgresError where the server does not let us switch, or cannot be reached.
        """
        failed_before = self.server.facts().archiver.failed_count
        name = self.server.switch_wal().file.name
        begun = self.monotonic()
        self.progress(f"segment {name} is finished, waiting for PostgreSQL to archive it")
        if not self._wait(lambda: self._is_archived(name)):
            return Proof(name, None, message=self._why_not(name, failed_before))
        archived_seconds = self.monotonic() - begun
        self.progress(f"segment {name} is in the spool, waiting for every store to have it")
        return self._follow(name, begun, archived_seconds)

    def _follow(self, name: str, begun: float, archived_seconds: float) -> Proof:
        if self.archive_now is not None and not all(self.find_copies(name).values()):
            self.archive_now()
        found: dict[str, float] = {}
        missing: list[str] = []

        def everywhere() -> bool:
            copies = self.find_copies(name)
            for store, has_it in copies.items():
                if has_it and store not in found:
                    found[store] = self.monotonic() - begun
                    self.progress(f"segment {name} is on {store}")
            missing[:] = [store for store, has_it in copies.items() if not has_it]
            return not missing

        if self._wait(everywhere):
            return Proof(name, archived_seconds, found)
        stores = ", ".join(missing)
        message = f"segment '{name}' is in the spool, but after {self.wait_seconds:g} s not on {stores}"
        return Proof(name, archived_seconds, found, tuple(missing), message)

    def _is_archived(self, name: str) -> bool:
        """Return whether the file is in the spool or, by PostgreSQL, was there: a busy pipeline may take it first.

        Names on one timeline sort as their segments do.
        """
        if (self.spool / name).exists():
            return True
        last = self.server.facts().archiver.last_archived_wal or ""
        return last[:8] == name[:8] and last[:24] >= name

    def _why_not(self, name: str, failed_before: int) -> str:
        archiver = self.server.facts().archiver
        waited = f"segment '{name}' did not come into the spool within {self.wait_seconds:g} s"
        return f"{waited}: {archiver_trouble(archiver, failed_before) or 'the archiver is still busy with older files'}"

    def _wait(self, condition: Callable[[], bool]) -> bool:
        deadline = self.monotonic() + self.wait_seconds
        while not condition():
            if self.monotonic() >= deadline:
                return False
            self.sleep(_POLL_SECONDS)
        return True
