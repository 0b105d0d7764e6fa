"""Answers the restore commands of one recovery from the process that fetches ahead: all is imported and connected.

The other side is ``prefetch_client``. Where the answer is neither a file nor proven absence, the client becomes the
whole program, which says why.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Self

from wal_pipeline.commands.archive_get.file_answers import FileAnswer, FileAnswers
from wal_pipeline.commands.archive_get.prefetch_client import (
    MAX_MESSAGE_BYTES,
    SOCKET_NAME,
    UNKNOWN,
    open_private,
    peer_is_ours,
    socket_path,
)
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.wal.names import WalFileName, parse_file_name

_AT_ONCE: Final = 4
_QUESTION_SECONDS: Final = 10.0
_TAKING_SECONDS: Final = 120.0
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
        absence_notes: Callable[[WalFileName], tuple[str, ...]] = lambda _name: (),
        on_ready: Callable[[], None] = lambda: None,
        on_other_settings: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_ready = on_ready
        self._on_other_settings = on_other_settings
        self._folder = folder
        self._answers = FileAnswers(folder, fetch, absence_notes)
        self._fingerprint = fingerprint
        self._now = now
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.asked_at = now()

    def __enter__(self) -> Self:
        """Begin to listen. Where that cannot be, such as in a folder that others can enter, nobody is answered."""
        with suppress(OSError):
            self._thread = threading.Thread(target=self._serve, args=[self._listen()], name="answer", daemon=True)
            self._thread.start()
        self._on_ready()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Answer the question that is being answered, and no more."""
        self._stop.set()
        self._answers.stop()
        if self._thread is not None:
            self._thread.join()
        (self._folder.path / SOCKET_NAME).unlink(missing_ok=True)

    def is_asked(self, name: str) -> bool:
        """Whether somebody waits for this file now."""
        return self._answers.is_asked(name)

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

    def _serve(self, listening: socket.socket) -> None:
        """PostgreSQL asks for one file at a time, but a call that was killed may still be answered meanwhile."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="answer") as pool, listening:
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
            connection.sendall(FileAnswer(UNKNOWN).message())
            if peer_is_ours(connection) and name is not None:
                self._on_other_settings()  # the program that is called now starts a process with the new ones
            return
        self.asked_at = self._now()
        connection.settimeout(None)
        answer = self._answers.find(name)
        try:
            connection.settimeout(_TAKING_SECONDS)
            connection.sendall(answer.message())
            connection.recv(1)  # its end: the file was taken
        finally:
            self.asked_at = self._now()
            if answer.file is not None and answer.is_own:
                (self._folder.path / answer.file).unlink(missing_ok=True)


def _line(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n") and len(data) <= MAX_MESSAGE_BYTES:
        chunk = connection.recv(MAX_MESSAGE_BYTES)
        if not chunk:
            break
        data += chunk
    return data.decode("ascii", "replace").rstrip("\n")
