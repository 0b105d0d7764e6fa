"""Reads the words of PostgreSQL's programs and of the server behind them: warnings, files left out, damaged pages.

The server's language may be any, where the role may not set ``lc_messages``: a path below the data directory then says
what the words are about (basebackup.c's messages).
"""

import re
from collections.abc import Sequence
from typing import Final

from wal_pipeline.archive.records import DamagedPages

_OWN: Final = re.compile(r"^(?P<program>pg_\w+): (?:warning|error): ")
_PROGRAM_WARNING: Final = re.compile(r"^(?:pg_\w+: warning: |(?:psql:\S+ )?WARNING:  )")
_WARNING: Final = re.compile(r"^(?P<severity>\S+):\s\s(?P<text>.*)$")
_PATH: Final = re.compile(r"(?P<path>(?:\./|pg_tblspc/)[^\"»«“”„'\n]*[^\"»«“”„'\s])")
_BLOCK: Final = re.compile(r"checksum verification failed in file \"(.+)\", block (\d+):")
_TOTAL: Final = re.compile(r"file \"(.+)\" has a total of (\d+) checksum verification failures?")
_UNCHECKED: Final = "could not verify checksum in file"  # its size is odd: no checksum was compared
_NUMBER: Final = re.compile(r"\b(?=[0-9A-F]*\d)[0-9A-F]+\b")
# What the waits tell while they last, and sums of what was told for each file.
_TOLD_ELSEWHERE: Final = (
    "still waiting for all required WAL segments",
    "further checksum verification failures in file",
    "total checksum verification failure",
)
_SOCKET: Final = re.compile(r"(?:^|/)\.s\.PGSQL\.\d+")
_NEEDED: Final = frozenset(
    ("base", "global", "pg_commit_ts", "pg_logical", "pg_multixact", "pg_tblspc", "pg_twophase", "pg_xact")
)
_NEEDED_FILES: Final = frozenset(("PG_VERSION",))
_MOST_KEPT: Final = 200
_SHOWN_LOST: Final = 5
LOST_HINT: Final = (
    "Nothing of it is kept. Stop the server and move what the link points to back into the data directory, or make it "
    "a tablespace."
)


class BackupWords:
    """Takes lines one after the other. ``warnings`` are kept with the base backup, ``lost`` are missing from it."""

    def __init__(self) -> None:
        self.left_out = 0
        self._warnings: dict[str, None] = {}
        self._lost: dict[str, None] = {}
        self._blocks: dict[str, set[int]] = {}
        self._totals: dict[str, int] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, each once, without those about damaged pages and lost files."""
        more = (f"and {self.left_out} more warnings",) if self.left_out else ()
        return (*self._warnings, *more)

    @property
    def lost(self) -> tuple[str, ...]:
        """The paths without which the cluster is not whole, and which the server skipped."""
        return tuple(self._lost)

    @property
    def damaged_pages(self) -> tuple[DamagedPages, ...]:
        """The files with wrong checksums, with the blocks that the server named."""
        return tuple(
            DamagedPages(path, tuple(sorted(blocks)), max(len(blocks), self._totals.get(path, 0)))
            for path, blocks in sorted(self._blocks.items())
        )

    def take(self, line: str) -> None:
        """Take one line of standard error."""
        found = _WARNING.match(line)
        if found is None:
            own = _OWN.match(line)
            if own is not None and ": warning: " in line:
                self._keep(line[own.end() :])
            return
        text = found["text"].strip()
        if any(words in text for words in _TOLD_ELSEWHERE):
            return
        path = _PATH.search(text)
        if path is not None and _UNCHECKED not in text:
            self._take_path(text, path["path"], text[path.end() :])
        elif found["severity"] == "WARNING":
            self._keep(text)

    def _take_path(self, text: str, path: str, rest: str) -> None:
        short = path.removeprefix("./")
        block, total = _BLOCK.search(text), _TOTAL.search(text)
        numbers = _NUMBER.findall(rest)
        if block is not None or (total is None and len(numbers) > 1 and numbers[0].isdigit()):
            self._blocks.setdefault(short, set()).add(int(block[2] if block else numbers[0]))
        elif short in self._blocks:  # a sum, or that the server names no more of this file
            self._totals[short] = int(numbers[0]) if numbers and numbers[0].isdigit() else 0
        elif numbers:
            self._keep(text)
        elif is_needed(short):
            self._lost.setdefault(short)
        elif not _SOCKET.search(short):
            self._keep(text)

    def _keep(self, text: str) -> None:
        if len(self._warnings) < _MOST_KEPT or text in self._warnings:
            self._warnings.setdefault(text)
        else:
            self.left_out += 1


def program_warnings(text: str) -> tuple[str, ...]:
    """Return the warnings that a program such as pg_combinebackup wrote, each once, with the program's name."""
    found = dict.fromkeys(line.strip() for line in text.splitlines() if _PROGRAM_WARNING.match(line))
    kept = tuple(found)[:_MOST_KEPT]
    return kept if len(kept) == len(found) else (*kept, f"and {len(found) - len(kept)} more warnings")


def lost_names(lost: Sequence[str]) -> str:
    """Name the paths that a base backup would lack, the first five and the number of the others."""
    names = ", ".join(f"'{path}'" for path in lost[:_SHOWN_LOST])
    return f"{names} and {len(lost) - _SHOWN_LOST} more" if len(lost) > _SHOWN_LOST else names


def is_needed(path: str) -> bool:
    """Say whether a cluster without this file or folder of its data directory is not whole."""
    return path.partition("/")[0] in _NEEDED or path in _NEEDED_FILES
