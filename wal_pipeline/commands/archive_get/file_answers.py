"""Finds a file for a ``restore_command`` that asks a living process: fetched ahead, on its way, or in the stores."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from wal_pipeline.commands.archive_get.prefetch_client import ABSENT, MAX_MESSAGE_BYTES, READY, UNKNOWN
from wal_pipeline.commands.archive_get.prefetch_folder import Position, PrefetchFolder
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.wal.names import FileKind, WalFileName

_POLL_SECONDS: Final = 0.005


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """``verdict`` is READY, with the ``file`` in the folder, or ABSENT, or UNKNOWN, with the ``fault``.

    ``is_own``: the file is for this asker alone, under a name that the prefetcher leaves alone.
    """

    verdict: str
    file: str | None = None
    is_own: bool = False
    notes: tuple[str, ...] = ()
    fault: str | None = None

    def message(self) -> bytes:
        """Return the answer's form: a verdict, a line for each note, an empty line; long notes are cut."""
        verdict = self.verdict if self.file is None else f"{self.verdict} {self.file}"
        lines = [verdict, *(" ".join(note.split()) for note in self.notes)]
        return "\n".join(lines).encode("utf-8", "replace")[: MAX_MESSAGE_BYTES // 2] + b"\n\n"


class FileAnswers:
    """Answers for a folder that a prefetcher works in.

    Two answers count: a file, verified and whole, and absence, for which every store was asked after the question came.
    """

    def __init__(
        self,
        folder: PrefetchFolder,
        fetch: Callable[[WalFileName], FetchedWal | None],
        absence_notes: Callable[[WalFileName], tuple[str, ...]] = lambda _name: (),
    ) -> None:
        """``absence_notes`` returns what is to be said of a file that ``fetch`` has just called absent."""
        self._folder = folder
        self._fetch = fetch
        self._absence_notes = absence_notes
        self._numbers = count()
        self._asked: set[str] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Wait no longer for files that are on their way."""
        self._stopped.set()

    def is_asked(self, name: str) -> bool:
        """Whether somebody waits for this file now: then the prefetcher need not fetch it too."""
        return name in self._asked

    def find(self, name: WalFileName) -> FileAnswer:
        """Return the answer for one file; an error becomes UNKNOWN."""
        self._asked.add(name.name)  # before the look at the mark: one of the two sides always sees the other
        try:
            self._await_load(name)
            return self._found(name)
        except WalPipelineError as error:
            return FileAnswer(UNKNOWN, fault=error.message)
        except OSError as error:
            return FileAnswer(UNKNOWN, fault=str(error))
        finally:
            self._asked.discard(name.name)

    def _await_load(self, name: WalFileName) -> None:
        """Wait while the file is being fetched ahead. If it does not come then, the stores are asked once more."""
        mark = self._folder.mark(name.name)
        while mark.exists() and not self._stopped.is_set():
            time.sleep(_POLL_SECONDS)

    def _found(self, name: WalFileName) -> FileAnswer:
        if (self._folder.path / name.name).exists():
            return FileAnswer(READY, name.name)
        fetched = self._fetch(name)
        return FileAnswer(ABSENT, notes=self._absence_notes(name)) if fetched is None else self._deliver(fetched)

    def _deliver(self, fetched: FetchedWal) -> FileAnswer:
        """Put the file under a name of its own, and note where replay is."""
        file = f".{fetched.name.name}.{next(self._numbers)}.answer"
        self._folder.put(fetched.data, file)
        if fetched.name.kind is FileKind.SEGMENT:
            self._folder.write_position(Position(fetched.name, len(fetched.data)))
        notes = tuple(f"'{fetched.name.name}' was taken from {fetched.store}: {note}" for note in fetched.notes)
        return FileAnswer(READY, file, is_own=True, notes=notes)
