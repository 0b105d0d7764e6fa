"""Answer the restore commands of one recovery from the process that fetches ahead: all is imported and connected.

The other side is ``fetch_ask``. Only two answers are given: a file, verified and whole, and absence, for which every
store was asked after the question came. Everything else is left to the whole program, which says why.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Final, Self

from wal_pipeline.commands.archive_get.prefetch_client import (
    ABSENT,
    MAX_MESSAGE_BYTES,
    READY,
    SOCKET_NAME,
    UNKNOWN,
    open_private,
    peer_is_ours,
    socket_path,
)
from wal_pipeline.commands.archive_get.prefetch_folder import Position, PrefetchFolder
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.host.durable_file import write_durably
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name

_AT_ONCE: Final = 4
_QUESTION_SECONDS: Final = 10.0
_TAKING_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.005
_TURN_SECONDS: Final = 0.5


class PrefetchServer:
    """Listens in the folder while it is open. ``fingerprint`` is of the settings that ``fetch`` works with.

    ``on_ready`` is called once it listens, or cannot; ``on_other_settings`` where a question came with other settings.
    """

    def __init__(
        self,
        folder: PrefetchFolder,
        fetch: Callable[[WalFileName], FetchedWal | None],
        fingerprint: str,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_other_settings: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_ready = on_ready
        self._on_other_settings = on_other_settings
        self._folder = folder
        self._fetch = fetch
        self._fingerprint = fingerprint
        self._now = now
        self._numbers = count()
        self._stop = threading.Event()
        self._listening: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="answer", daemon=True)
        self.asked_at = now()

    def __enter__(self) -> Self:
        """Begin to listen. Where that cannot be, such as in a folder that others can enter, nobody is answered."""
        with suppress(OSError):
            self._listening = self._listen()
            self._thread.start()
        self._on_ready()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Answer the question that is being answered, and no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        (self._folder.path / SOCKET_NAME).unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        descriptor = open_private(str(self._folder.path))
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(socket_path(descriptor))
            listening.listen()
            listening.settimeout(_TURN_SECONDS)
        except OSError:
            listening.close()
            raise
        finally:
            os.close(descriptor)
        return listening

    def _serve(self) -> None:
        """PostgreSQL asks for one file at a time, but a call that was killed may still be answered meanwhile."""
        assert self._listening is not None  # noqa: S101
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="answer") as pool, self._listening as listening:
            while not self._stop.is_set():
                with suppress(TimeoutError):
                    pool.submit(self._serve_one, listening.accept()[0])

    def _serve_one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # whoever asked is gone
            self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(_QUESTION_SECONDS)
        fingerprint, _, text = _line(connection).partition(" ")
        name = parse_file_name(text)
        if not peer_is_ours(connection) or fingerprint != self._fingerprint or name is None:
            connection.sendall(_message(UNKNOWN))
            if peer_is_ours(connection) and name is not None:
                self._on_other_settings()  # the program that is called now starts a process with the new ones
            return
        self.asked_at = self._now()
        connection.settimeout(None)
        lines, file = self._answer(name)
        try:
            connection.settimeout(_TAKING_SECONDS)
            connection.sendall(_message(*lines))
            connection.recv(1)  # its end: the file was taken
        finally:
            self.asked_at = self._now()
            if file is not None:
                (self._folder.path / file).unlink(missing_ok=True)

    def _answer(self, name: WalFileName) -> tuple[list[str], str | None]:
        """Return the lines of the answer, and the file that is only for whoever asked."""
        self._await_load(name)
        if (self._folder.path / name.name).exists():
            return [f"{READY} {name.name}"], None
        try:
            fetched = self._fetch(name)
            return ([ABSENT], None) if fetched is None else self._delivery(fetched)
        except (WalPipelineError, OSError):
            return [UNKNOWN], None

    def _await_load(self, name: WalFileName) -> None:
        """Wait while the file is being fetched ahead. If it does not come then, the stores are asked once more."""
        mark = self._folder.mark(name.name)
        while mark.exists() and not self._stop.is_set():
            time.sleep(_POLL_SECONDS)

    def _delivery(self, fetched: FetchedWal) -> tuple[list[str], str]:
        """Put the file under a name of its own, which the prefetcher leaves alone."""
        file = f".{fetched.name.name}.{next(self._numbers)}.answer"
        write_durably(fetched.data, self._folder.path / file)
        if fetched.name.kind is FileKind.SEGMENT:
            self._folder.write_position(Position(fetched.name, len(fetched.data)))
        notes = [f"'{fetched.name.name}' was taken from {fetched.store}: {note}" for note in fetched.notes]
        return [f"{READY} {file}", *(" ".join(note.split()) for note in notes)], file


def _line(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n") and len(data) <= MAX_MESSAGE_BYTES:
        chunk = connection.recv(MAX_MESSAGE_BYTES)
        if not chunk:
            break
        data += chunk
    return data.decode("ascii", "replace").rstrip("\n")


def _message(*lines: str) -> bytes:
    """Return an answer that whoever asked knows to be whole; long notes are cut."""
    text = "\n".join(lines).encode("utf-8", "replace")[: MAX_MESSAGE_BYTES // 2]
    return text + b"\n\n"
