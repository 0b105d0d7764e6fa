"""Serves a ``restore_command`` from this process: the server beside its original gets neither program nor credentials.

The files come from the same prefetcher and the same answers as in a restore. Only the asking differs: a server that
root starts is another user's, who may be unable to run this program's Python, and ``sh`` can open no socket. So a
script leaves its question as a file in the prefetch folder, and a thread here puts the answer beside it.
"""

import math
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Self

from wal_pipeline.commands.archive_get.file_answers import FileAnswer, FileAnswers
from wal_pipeline.commands.archive_get.prefetch_client import ABSENT, READY, UNKNOWN
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.prefetcher import Prefetcher, PrefetchLimits
from wal_pipeline.commands.archive_get.restore_command import EXIT_DELIVERED, EXIT_FAILED
from wal_pipeline.commands.archive_get.tail_wal import RecoveryWal
from wal_pipeline.commands.archive_get.wal_source import FetchedWal, fetch_patiently
from wal_pipeline.commands.restore.perform import RestoreCommand
from wal_pipeline.postgres.recovery_server import ServerUser
from wal_pipeline.wal.names import WalFileName, parse_file_name

_POLL_SECONDS: Final = 0.02
_RETRY_SECONDS: Final = 60.0
_SCRIPT_NAME: Final = "fetch.sh"
_LIMITS: Final = PrefetchLimits(idle_seconds=math.inf)  # as in a restore, but it ends with our process
# It is called as prefetch_client is: FOLDER ... --exit-absent CODE FILE DESTINATION. Each question has its own number,
# so that no answer to an earlier one is read. Where a file that was fetched ahead is not there any more, it asks again.
# A folder that is gone means that the process is: fail, never wait.
_SCRIPT: Final = f"""#!/bin/sh
folder=$1; shift
while [ $# -gt 3 ]; do shift; done
for number in 1 2 3; do
  question="$folder/.$2.$$-$number"
  : > "$question.asked" || exit {EXIT_FAILED}
  while [ ! -s "$question.answered" ]; do [ -d "$folder" ] || exit {EXIT_FAILED}; sleep {_POLL_SECONDS}; done
  read -r verdict file < "$question.answered" || exit {EXIT_FAILED}
  rm -f "$question.answered"
  case $verdict in
    {READY}) mv -f "$folder/$file" "$3" && exit {EXIT_DELIVERED};;
    {ABSENT}) exit "$1";;
    *) exit {EXIT_FAILED};;
  esac
done
exit {EXIT_FAILED}
"""


class FetchService:
    """Answers the server while it is open. ``faults``: why a file that it asked for could not be fetched."""

    def __init__(self, folder: Path, source: RecoveryWal, user: ServerUser) -> None:
        """``folder`` is made and removed; it is for files fetched ahead and lies in a folder of ours."""
        self._folder = PrefetchFolder(folder, owner=(user.uid, user.gid), durable=False)
        self._prefetcher = Prefetcher(self._folder, source.fetch_whole, _LIMITS)
        self._answers = FileAnswers(self._folder, partial(_fetch, source))
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beside-fetch", daemon=True)
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        """Make the folder and begin to answer."""
        self._folder.make()
        self._script.write_text(_SCRIPT, encoding="ascii")
        self._script.chmod(0o644)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Answer no more."""
        self._stop.set()
        self._answers.stop()
        self._prefetcher.stop()
        self._thread.join()

    def command(self, last_segment: str | None = None) -> RestoreCommand:
        """Return the server's ``restore_command``; no segment after ``last_segment`` is delivered."""
        client = ("/bin/sh", str(self._script))
        return RestoreCommand((), self._folder, last_segment=last_segment, client=client)

    @property
    def _script(self) -> Path:
        return self._folder.path.with_name(_SCRIPT_NAME)

    def _run(self) -> None:
        """Fetch ahead and answer until told to stop; then remove the folder, so that no script waits for an answer."""
        try:
            self._prefetcher.run(self._answering(), is_asked=self._answers.is_asked)
        finally:
            self._ready.set()
            shutil.rmtree(self._folder.path, ignore_errors=True)
            self._script.unlink(missing_ok=True)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        thread = threading.Thread(target=self._serve, name="beside-answer", daemon=True)
        thread.start()
        self._ready.set()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _serve(self) -> None:
        """Answer one question after another: PostgreSQL asks for one file at a time."""
        try:
            while not self._stop.wait(_POLL_SECONDS):
                for asked in self._folder.path.glob(".*.asked"):
                    asked.unlink()
                    question = asked.name.removesuffix(".asked")
                    self._folder.put(self._answer(question[1:].rpartition(".")[0]).message(), f"{question}.answered")
        except OSError as error:
            self.faults.append(str(error))
        finally:
            self._prefetcher.stop()  # which removes the folder: a script must not wait for nobody

    def _answer(self, text: str) -> FileAnswer:
        name = parse_file_name(text)
        if name is None:
            answer = FileAnswer(UNKNOWN, fault=f"'{text}' is not the name of a file of the WAL archive")
        else:
            answer = self._answers.find(name)
        if answer.fault is not None:
            self.faults.append(answer.fault)  # the server stops, and says only that it did
        return answer


def _fetch(source: RecoveryWal, name: WalFileName) -> FetchedWal | None:
    return fetch_patiently(lambda: source.fetch(name), _RETRY_SECONDS, say=lambda _text: None)
