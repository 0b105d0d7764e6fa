"""Serve a drill's ``restore_command`` from this process: the scratch server gets neither program nor credentials.

The server's user need not be able to run this program: a script of a few lines leaves a request in a folder, and a
thread here answers it with the file and the exit code that ``archive-get`` would give.
"""

import os
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from wal_pipeline.commands.archive_get.restore_command import EXIT_ABSENT_MARK, EXIT_DELIVERED, EXIT_FAILED
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, WalSource, fetch_patiently
from wal_pipeline.errors import RestoreError, WalPipelineError
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.wal.names import FileKind, WalFileName, parse_file_name

_AHEAD: Final = 4
_POLL_SECONDS: Final = 0.02
_RETRY_SECONDS: Final = 60.0
# The last two arguments are PostgreSQL's %f and %p. A folder that is gone means that the drill is: fail, never wait.
_SCRIPT: Final = """#!/bin/sh
folder=$1; shift
while [ $# -gt 2 ]; do shift; done
: > "$folder/$1.asked" || exit 200
while [ ! -s "$folder/$1.code" ]; do [ -d "$folder" ] || exit 200; sleep 0.02; done
read -r code < "$folder/$1.code" || exit 200
rm -f "$folder/$1.code"
if [ "$code" -eq 0 ]; then mv -f "$folder/$1.data" "$2" || exit 200; fi
exit "$code"
"""


class FetchService:
    """Answers requests in a folder while it is open; fetches a few segments ahead. ``faults``: why it could not."""

    def __init__(self, folder: Path, source: WalSource, user: ServerUser, wal_segment_size: int) -> None:
        self._folder = folder
        self._source = source
        self._user = user
        self._wal_segment_size = wal_segment_size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="drill-fetch", daemon=True)
        self._ahead: dict[str, Future[FetchedWal | None]] = {}
        self.faults: list[str] = []

    def __enter__(self) -> "FetchService":
        """Make the folder and begin to answer."""
        self._folder.mkdir(mode=0o700)
        self._script.write_text(_SCRIPT, encoding="ascii")
        self._give(self._folder, self._script)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Answer no more."""
        self._stop.set()
        self._thread.join()

    @property
    def program(self) -> list[str]:
        """The call that stands in the restore command, in the place of ``archive-get``."""
        return ["/bin/sh", str(self._script), str(self._folder)]

    @property
    def _script(self) -> Path:
        return self._folder / "fetch.sh"

    def _serve(self) -> None:
        """Answer until told to stop; the folder goes with the last answer, so that no script waits for another one."""
        try:
            with ThreadPoolExecutor(_AHEAD, thread_name_prefix="drill-ahead") as pool:
                while not self._stop.is_set():
                    for asked in self._folder.glob("*.asked"):
                        asked.unlink()
                        self._answer(asked.name.removesuffix(".asked"), pool)
                    time.sleep(_POLL_SECONDS)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self, text: str, pool: ThreadPoolExecutor) -> None:
        code = EXIT_FAILED
        try:
            name = parse_file_name(text)
            if name is None:
                raise RestoreError(f"'{text}' is not the name of a file of the WAL archive")
            fetched = self._ahead.pop(text, None) or self._fetch(name, pool)
            self._look_ahead(name, pool)
            found = fetched.result()
            if found is None:
                code = EXIT_ABSENT_MARK
            else:
                self._write(f"{text}.data", found.data)
                code = EXIT_DELIVERED
        except (WalPipelineError, OSError) as error:
            self.faults.append(getattr(error, "message", str(error)))  # the server stops, and says only that it did
            code = EXIT_FAILED
        self._write(f"{text}.code", f"{code}\n".encode())

    def _look_ahead(self, name: WalFileName, pool: ThreadPoolExecutor) -> None:
        """Fetch the segments that follow, and forget those of a timeline that recovery has left."""
        if name.kind is not FileKind.SEGMENT:
            return
        wanted = []
        for _ in range(_AHEAD):
            name = name.next(self._wal_segment_size)
            wanted.append(name)
        self._ahead = {one.name: self._ahead.get(one.name) or self._fetch(one, pool) for one in wanted}

    def _fetch(self, name: WalFileName, pool: ThreadPoolExecutor) -> "Future[FetchedWal | None]":
        return pool.submit(fetch_patiently, lambda: self._source.fetch(name), _RETRY_SECONDS, say=lambda _text: None)

    def _write(self, name: str, data: bytes) -> None:
        temporary = self._folder / f".{name}"
        temporary.write_bytes(data)
        self._give(temporary)
        temporary.rename(self._folder / name)

    def _give(self, *paths: Path) -> None:
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, self._user.uid, self._user.gid)
