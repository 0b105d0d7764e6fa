"""Runs PostgreSQL's own pg_receivewal, which receives WAL from a server on another host into a folder of ours."""

import io
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from wal_pipeline.errors import PostgresError
from wal_pipeline.host.durable_file import write_whole
from wal_pipeline.host.process_identity import identity_of, living_process
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, parse_long_page_header
from wal_pipeline.wal.pages import record_end

PROGRAM: Final = "pg_receivewal"
PARTIAL: Final = ".partial"
_PROCESS_NAME: Final = ".receiver.process"
_KEPT_LINES: Final = 20
_STOP_SECONDS: Final = 10.0
_WALDUMP_SECONDS: Final = 120.0
_STATUS_SECONDS: Final = 1
_LAST_RECORD: Final = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+):")
_ALIGNMENT: Final = 8
_SPEAKER: Final = re.compile(r"^pg_receivewal: (?:error: )?")


@dataclass(frozen=True, slots=True)
class ReceiveCommand:
    """A command line of pg_receivewal; ``slot`` is also the name by which the server knows it."""

    program: Path
    conninfo: str
    folder: Path
    slot: str

    def arguments(self) -> list[str]:
        """Return the arguments.

        It syncs what it writes at once and says so to the server: what the server hears is on our disk. Its own loop
        is off, because that waits five seconds after each lost connection and tells nobody why.
        """
        return [
            str(self.program),
            f"--directory={self.folder}",
            f"--slot={self.slot}",
            "--synchronous",
            f"--status-interval={_STATUS_SECONDS}",
            "--no-loop",
            "--no-password",
            "--verbose",
            f"--dbname={self.conninfo}",
        ]


class ReceiveWal:
    """pg_receivewal as a child of ours: started, watched, and ended with what a killed one of us left running."""

    def __init__(self, command: ReceiveCommand, environment: Mapping[str, str]) -> None:
        """Start nothing yet."""
        self.command = command
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def is_running(self) -> bool:
        """Whether the program runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The program's process id; None where it was never started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the program; first end the one that an earlier process of ours left behind. Raises: PostgresError."""
        self.stop()
        try:
            self.command.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._end_left_behind()
            self._lines.clear()
            self._process = subprocess.Popen(
                self.command.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us: what was received last is shipped before it ends
            )
            write_whole(identity_of(self._process.pid).encode(), self._mark)
        except OSError as error:
            self.stop()
            raise PostgresError(f"'{self.command.program}' cannot be started: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read_messages, name="pg_receivewal-messages", daemon=True)
        self._reader.start()

    def failure(self) -> PostgresError:
        """Return the error that says how the program ended."""
        if self._reader is not None:
            self._reader.join(_STOP_SECONDS)
        lines = [line for line in self._lines if "error:" in line or "fatal:" in line.lower()]
        text = "; ".join(_SPEAKER.sub("", line).strip() for line in lines) or "it printed no error"
        return PostgresError(f"pg_receivewal ended: {text}", hint=_hint(text))

    def stop(self) -> None:
        """End the program, where it runs."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._reader is not None:
            self._reader.join(_STOP_SECONDS)
        if process.stderr is not None:
            process.stderr.close()
        self._process = None

    @property
    def _mark(self) -> Path:
        return self.command.folder / _PROCESS_NAME

    def _end_left_behind(self) -> None:
        """End the child of a process of ours that was killed: two may not write into one folder."""
        try:
            identity = self._mark.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        begun = time.monotonic()
        while (process := living_process(identity)) is not None:
            waited = time.monotonic() - begun
            if waited > 2 * _STOP_SECONDS:
                raise PostgresError(
                    f"pg_receivewal of an earlier run, process {process}, cannot be ended",
                    hint=f"Look what it waits for: ps -fp {process}. Perhaps its disk does not answer.",
                )
            os.kill(process, signal.SIGTERM if waited < _STOP_SECONDS else signal.SIGKILL)
            time.sleep(0.1)

    def _read_messages(self) -> None:
        process = self._process
        if process is None or process.stderr is None:
            return
        for line in io.TextIOWrapper(cast(BinaryIO, process.stderr), errors="replace"):
            self._lines.append(line.rstrip())


def valid_end(pg_waldump: Path, path: Path, segment: WalFileName) -> Lsn | None:
    """Return the LSN behind the last record in a half-received segment whose checksum is right; None where none is.

    It is what recovery itself would find. Raises: PostgresError.
    """
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-received-") as folder:
        (Path(folder) / segment.name).symlink_to(path.absolute())
        command = [str(pg_waldump), "--quiet", f"--path={folder}", segment.name]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=_WALDUMP_SECONDS,
                env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)},
            )  # fmt: skip
            with path.open("rb") as file:
                header = parse_long_page_header(segment.name, file.read(LONG_HEADER_BYTES))
                if done.returncode == 0:
                    return Lsn(header.page_address + header.wal_segment_size)
                found = _LAST_RECORD.search(done.stderr)
                if found is None:
                    return None
                last = Lsn.parse(found[1])
                file.seek(last - header.page_address)
                size_bytes = int.from_bytes(file.read(4), "little")  # XLogRecord.xl_tot_len
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostgresError(f"'{path}' cannot be read to its last record: {error}") from error
    end = record_end(last, size_bytes, header.wal_segment_size, header.block_size)
    return Lsn((end + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT)


def _hint(text: str) -> str:
    hints = {
        "does not exist": "Type 'wal-pipeline slot make'.",
        "is active for PID": "Another pg_receivewal or a standby uses this slot: name another one with "
        "WAL_PIPELINE_SHIP_SLOT, and type 'wal-pipeline slot make'.",
        "requested WAL segment": "The server removed WAL that the slot was to keep. Type 'wal-pipeline slot check'.",
        "no pg_hba.conf entry": "Allow replication connections for this role in pg_hba.conf ('host replication ...').",
        "replication role": "ALTER ROLE ... REPLICATION, or use another role.",
        "permission denied": "ALTER ROLE ... REPLICATION, or use another role.",
        "max_wal_senders": "Raise max_wal_senders on the server, or end another replication connection.",
    }
    default = "It is started again at the next look. The server's log says whether the server was stopped."
    return next((hint for part, hint in hints.items() if part in text), default)
