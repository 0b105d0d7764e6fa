"""Searches files, SQLite's tables and the command lines of running processes for secrets."""

import base64
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, quote_plus

_SQLITE_MARK = b"SQLite format 3\0"
_SAMPLE_SECONDS = 0.02
_LOOKS_A_SECOND = round(1 / _SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret's name, and the ``place`` of its value: a file or a command line."""

    secret: str
    place: str


class SecretSearch:
    """The secrets, each with a name that may be printed. A search finds the value in every form."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = {name: forms(value) for name, value in secrets.items()}

    def in_bytes(self, data: bytes) -> list[str]:
        """Return the names of the secrets in ``data``."""
        return [name for name, found in self._forms.items() if any(form in data for form in found)]

    def in_files(self, folders: Iterable[Path]) -> list[Finding]:
        """Search every file below the folders, and pass over files that are removed in the meantime."""
        paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
        return [finding for path in paths for finding in self._in_file(path)]

    def _in_file(self, path: Path) -> list[Finding]:
        try:
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except FileNotFoundError:
            return []
        names = set(self.in_bytes(data))
        if data.startswith(_SQLITE_MARK):
            names.update(self.in_bytes(_dump(path)))
        return [Finding(name, str(path)) for name in sorted(names)]


def forms(value: str) -> set[bytes]:
    """Return the forms of a value: plain, in a URL, in JSON, in a connection string, in base64."""
    texts = {value, quote(value), quote(value, safe=""), quote_plus(value)}
    texts |= {text.replace("/", "\\/") for text in texts} | {value.replace("\\", "\\\\").replace("'", "\\'")}
    return {text.encode() for text in texts} | _base64_forms(value.encode())


def _base64_forms(value: bytes) -> set[bytes]:
    """Return the value's base64 at each place in a longer text, without the ends that its neighbours change."""
    found = set()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + value)
        first = (before * 8 + 5) // 6
        whole = text[first : (before + len(value)) * 8 // 6]
        found |= {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def _dump(path: Path) -> bytes:
    """Return a database as SQL, because a long value lies in several pages of the file, with others between."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda data: data.decode(errors="replace")
        rows = []
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - the database's own name
                rows += [item if isinstance(item, bytes) else str(item).encode() for item in row]
        return b"\n".join(rows)


class ProcessWatch:
    """Reads the command lines of all processes again and again, in a thread, until the block ends.

    Those of a process that has lived for a second are read once a second: nearly all of them never change.
    """

    def __init__(self, search: SecretSearch) -> None:
        self.findings: set[Finding] = set()
        self.seen: set[bytes] = set()
        self._search = search
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def saw(self, text: str) -> bool:
        """Whether a process with this text in its command line was seen."""
        return any(text.encode() in words for words in self.seen)

    def _watch(self) -> None:
        looks: dict[str, int] = {}
        while not self._over.wait(_SAMPLE_SECONDS):
            found = os.listdir("/proc")  # noqa: PTH208 - fifty times a second: paths would cost thrice as much
            looks = {name: looks.get(name, 0) + 1 for name in found if name.isdigit()}
            for name, times in looks.items():
                if times <= _LOOKS_A_SECOND or times % _LOOKS_A_SECOND == 0:
                    self._look(name)

    def _look(self, pid: str) -> None:
        try:
            with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:  # noqa: PTH123 - see above
                words = file.read()
        except OSError:
            return
        if words not in self.seen:
            self.seen.add(words)
            self.findings |= {Finding(name, words.decode(errors="replace")) for name in self._search.in_bytes(words)}
