"""Runs command lines in this process on a terminal or pipe of a chosen width and encoding, and returns their bytes."""

import io
import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from wal_pipeline.cli.group import run

_CONTROLS = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\([A-Z])")


@dataclass(frozen=True, slots=True)
class Typed:
    """What a command line printed, on stdout and stderr together, without the terminal's control sequences."""

    code: int
    printed: bytes
    encoding: str

    @property
    def lines(self) -> list[str]:
        """The lines, decoded strictly: an encoding that is not the terminal's shows here."""
        return self.printed.decode(self.encoding).replace("\r\n", "\n").splitlines()


@dataclass(frozen=True, slots=True)
class Terminal:
    """A place to print to. ``columns`` None: a pipe."""

    columns: int | None
    encoding: str

    def run(self, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
        """Run a command line there."""
        reader, writer = os.pipe() if self.columns is None else os.openpty()
        received: list[bytes] = []
        thread = threading.Thread(target=_read, args=(reader, received))
        thread.start()
        with monkeypatch.context() as changed, os.fdopen(writer, "wb", buffering=0) as raw:
            stream = io.TextIOWrapper(raw, encoding=self.encoding, errors="strict", write_through=True)
            changed.setattr(sys, "stdout", stream)
            changed.setattr(sys, "stderr", stream)
            changed.setenv("TERM", "xterm-256color")
            changed.delenv("COLUMNS", raising=False)
            if self.columns is not None:
                changed.setenv("COLUMNS", str(self.columns))
            code = run(arguments)
            stream.flush()
            stream.detach()
        thread.join(30)
        os.close(reader)
        return Typed(code, _CONTROLS.sub(b"", b"".join(received)), self.encoding)


def _read(descriptor: int, received: list[bytes]) -> None:
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # a terminal whose other end is closed
            return
        if not data:
            return
        received.append(data)
