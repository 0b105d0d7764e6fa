"""The small script and the process that answers it: what counts as an answer, and what is left to the program."""

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get import prefetch_client
from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
from wal_pipeline.commands.archive_get.prefetch_server import PrefetchServer
from wal_pipeline.commands.archive_get.prefetcher import Prefetcher, PrefetchLimits
from wal_pipeline.commands.archive_get.restore_command import shell_line
from wal_pipeline.commands.archive_get.wal_source import FetchedWal
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.wal.names import WalFileName
from wal_pipeline_tests.support.restore_archive import SEGMENT_SIZE, run_line

NAME = "000000010000000000000003"
NEXT = "000000010000000000000004"
HISTORY = "00000002.history"
ENVIRONMENT = {"PATH": os.environ["PATH"]}


class Recovery:
    """A data directory, the line of its restore command, and a program that only notes that it was called."""

    def __init__(self, folder: Path) -> None:
        self.pgdata = folder / "it's 100% $HOME"
        (self.pgdata / "pg_wal").mkdir(parents=True)
        self.folder = PrefetchFolder(folder / ("long " * 30) / "ahead")
        self.folder.make()
        script = folder / "program"
        script.write_text(f"#!/bin/sh\necho called >> {shlex.quote(str(folder / 'called'))}\nexit 77\n")
        script.chmod(0o755)
        self.words = [str(script), "--env-file=" + str(folder / "settings")]
        self.called = folder / "called"
        (folder / "settings").write_text("A=1\n")
        self.settings = folder / "settings"
        self.present: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.broken = False
        self.before_answer: Callable[[], None] = lambda: None

    @property
    def fingerprint(self) -> str:
        """The one that the script works out."""
        return prefetch_client.fingerprint([*self.words, "--exit-absent", "100"], ENVIRONMENT)

    def fetch(self, name: WalFileName) -> FetchedWal | None:
        """Ask the stores."""
        self.asked.append(name.name)
        self.before_answer()
        if self.broken:
            raise StoreUnavailableError("r2", "no answer")
        data = self.present.get(name.name)
        return None if data is None else FetchedWal(name, data, "b2", "key", ("r2: object 'k'\nis damaged",))

    def answers(self) -> PrefetchServer:
        """What answers, not opened yet."""
        return PrefetchServer(self.folder, self.fetch, self.fingerprint, absence_notes=self.absence_notes)

    def absence_notes(self, name: WalFileName) -> tuple[str, ...]:
        """What is to be said of a file that no store has."""
        return (f"'{name.name}' is not used:\nr2: object 'k' is damaged",)

    def line(self, name: str, **variables: str) -> int:
        """Run the restore command for a file."""
        line = shell_line(self.words, self.folder.path).replace("%f", name)
        return run_line(line, self.pgdata, {**ENVIRONMENT, **variables})

    @property
    def restored(self) -> bytes:
        """What lies where PostgreSQL expects it."""
        return (self.pgdata / "pg_wal/RECOVERYXLOG").read_bytes()


@pytest.fixture
def recovery(tmp_path: Path) -> Recovery:
    """A recovery that begins."""
    return Recovery(tmp_path)


@pytest.fixture
def answered(recovery: Recovery) -> Iterator[Recovery]:
    """A recovery whose prefetcher answers."""
    with recovery.answers():
        yield recovery


def test_a_file_is_delivered_without_the_program(answered: Recovery) -> None:
    """A segment and a history file that were not fetched ahead arrive, and nothing is left in the folder."""
    answered.present = {NAME: b"wal" * 1000, HISTORY: b"1\t0/3000000\tno reason\n"}
    assert answered.line(NAME) == 0
    assert answered.restored == b"wal" * 1000
    assert answered.line(HISTORY) == 0
    assert answered.restored == b"1\t0/3000000\tno reason\n"
    assert not answered.called.exists()
    position = answered.folder.read_position()
    assert position is not None
    assert (position.name.name, position.wal_segment_size) == (NAME, 3000)
    wait_until(lambda: sorted(path.name for path in answered.folder.path.iterdir()) == ["position", "socket"])


def test_absence_is_asked_of_the_stores_each_time(answered: Recovery) -> None:
    """Absent is exit code 1; what comes to be a moment later is delivered by the next call."""
    assert answered.line(NAME) == 1
    assert answered.line(NAME) == 1
    answered.present = {NAME: b"wal"}
    assert answered.line(NAME) == 0
    assert answered.asked == [NAME, NAME, NAME]
    assert not answered.called.exists()


def test_fetching_ahead_in_vain_proves_no_absence(answered: Recovery) -> None:
    """Where fetching ahead began before the question and found nothing, the stores are asked again after it."""
    mark = answered.folder.mark(NAME)
    mark.touch()
    answered.present = {NAME: b"wal"}
    timer = threading.Timer(0.3, mark.unlink)
    timer.start()
    assert answered.line(NAME) == 0
    timer.join()
    assert answered.asked == [NAME]


def test_what_is_being_fetched_is_waited_for(answered: Recovery) -> None:
    """The stores are not asked twice for a file that is on its way."""
    mark = answered.folder.mark(NAME)
    mark.touch()

    def arrive() -> None:
        (answered.folder.path / NAME).write_bytes(b"wal")
        mark.unlink()

    timer = threading.Timer(0.3, arrive)
    timer.start()
    assert answered.line(NAME) == 0
    timer.join()
    assert answered.restored == b"wal"
    assert answered.asked == []


def test_a_failure_is_left_to_the_program(answered: Recovery) -> None:
    """A store that does not answer is no absence: the program is called, and its exit code is what counts."""
    answered.broken = True
    assert answered.line(NAME) == 200
    assert answered.called.read_text() == "called\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda recovery: recovery.settings.write_text("A=1\nB=2\n"),
        lambda recovery: recovery.words.append("--store=r2"),
        lambda recovery: (recovery.pgdata / ".env").write_text("A=1\n"),
        lambda recovery: recovery.folder.path.chmod(0o750),
        lambda recovery: (recovery.folder.path / "socket").unlink(),
    ],
    ids=["settings file", "options", "another settings file", "folder open to others", "no socket"],
)
def test_other_settings_are_not_answered(answered: Recovery, change: Callable[[Recovery], object]) -> None:
    """With other settings a file may be elsewhere: the program looks, also where absence was proven before."""
    assert answered.line(NAME) == 1
    change(answered)
    assert answered.line(NAME) == 200
    assert answered.called.read_text() == "called\n"
    assert answered.asked == [NAME]


def test_another_environment_is_not_answered(answered: Recovery) -> None:
    """A variable more is other settings."""
    assert answered.line(NAME, WAL_PIPELINE_STORES="r2") == 200
    assert answered.asked == []


@pytest.mark.parametrize(
    "said", [b"", b"absent", b"absent\n", b"ready\n\n", b"ready ../x\n\n", b"ready gone\n\n", b"nonsense\n\n", b"\n\n"]
)
def test_half_an_answer_is_none(recovery: Recovery, said: bytes) -> None:
    """A process that is killed while it answers, or names a file that is not there: the program is called."""
    with socket.socket(socket.AF_UNIX) as listening:
        descriptor = prefetch_client.open_private(str(recovery.folder.path))
        listening.bind(prefetch_client.socket_path(descriptor))
        os.close(descriptor)
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        assert recovery.line(NAME) == 200
        thread.join()
    assert recovery.called.read_text() == "called\n"


def test_a_line_without_a_process_that_answers_is_the_programs(recovery: Recovery) -> None:
    """Before the first file, or after the process has gone, the exit code is the program's own."""
    assert recovery.line(NAME) == 200
    with recovery.answers():
        assert recovery.line(NAME) == 1
    assert not (recovery.folder.path / "socket").exists()
    assert recovery.line(NAME) == 200
    assert recovery.called.read_text() == "called\ncalled\n"


def test_notes_reach_the_servers_log(answered: Recovery) -> None:
    """What was wrong on the way is said on one line, as the program says it."""
    answered.present = {NAME: b"wal"}
    script = [sys.executable, "-I", "-S", prefetch_client.__file__, str(answered.folder.path)]

    def ask(name: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*script, *answered.words, "--exit-absent", "100", name, "out"],
            check=False,
            capture_output=True,
            text=True,
            cwd=answered.pgdata,
            env=ENVIRONMENT,
            timeout=30,
        )

    done = ask(NAME)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"wal-pipeline archive-get: '{NAME}' was taken from b2: r2: object 'k' is damaged\n"
    absent = ask(NEXT)
    assert absent.returncode == 100
    assert absent.stderr == f"wal-pipeline archive-get: '{NEXT}' is not used: r2: object 'k' is damaged\n"


def test_a_prefetcher_without_a_position_answers_and_then_runs_ahead(recovery: Recovery) -> None:
    """Started by a history file, it waits for the first segment and fetches what follows."""
    recovery.present = {NAME: b"x" * SEGMENT_SIZE, NEXT: b"y" * SEGMENT_SIZE}
    answers = recovery.answers()
    prefetcher = Prefetcher(recovery.folder, recovery.fetch, PrefetchLimits(files=1, workers=1, idle_seconds=2))
    thread = threading.Thread(target=lambda: prefetcher.run(answers, asked_at=lambda: answers.asked_at))
    thread.start()
    wait_until((recovery.folder.path / "socket").exists)
    assert recovery.line(HISTORY) == 1
    assert recovery.line(NAME) == 0
    wait_until(lambda: recovery.folder.ready() == {NEXT})
    assert recovery.line(NEXT) == 0
    assert recovery.asked.count(NEXT) == 1
    thread.join(20)
    assert not thread.is_alive()
    assert sorted(path.name for path in recovery.folder.path.iterdir()) == ["lock", "position"]


def test_a_question_with_other_settings_ends_the_process(recovery: Recovery) -> None:
    """It would fetch ahead with old credentials for as long as segments are taken."""
    prefetcher = Prefetcher(recovery.folder, recovery.fetch, PrefetchLimits(idle_seconds=60))
    answers = PrefetchServer(recovery.folder, recovery.fetch, recovery.fingerprint, on_other_settings=prefetcher.stop)
    thread = threading.Thread(target=lambda: prefetcher.run(answers, asked_at=lambda: answers.asked_at))
    thread.start()
    wait_until((recovery.folder.path / "socket").exists)
    assert recovery.line(NAME) == 1
    assert thread.is_alive()
    recovery.settings.write_text("A=2\nB=1\n")
    assert recovery.line(NAME) == 200
    thread.join(20)
    assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so. Raises: AssertionError."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
