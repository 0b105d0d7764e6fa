"""Reads all records of some segments from pg_waldump's lines, to compare a decoder with them."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.postgres_install import PostgresInstall
from wal_pipeline.wal.lsn import Lsn

_LINE = re.compile(
    r"rmgr: (?P<manager>\S+) +len \(rec/tot\): +\d+/ *(?P<length>\d+), tx: +(?P<xid>\d+), "
    r"lsn: (?P<lsn>\S+), prev (?P<previous>\S+), desc: (?P<desc>.*?)(?:, blkref #\d+: rel (?P<rel>\d+/\d+/\d+).*)?$",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class DumpedRecord:
    """One record as pg_waldump prints it. ``relation`` is database and file node of the first block."""

    lsn: int
    previous: int
    length: int
    xid: int
    manager: str
    desc: str
    relation: tuple[int, int]

    @property
    def operation(self) -> str:
        """The first word, without +INIT."""
        return self.desc.split(" ", 1)[0].removesuffix("+INIT")

    @property
    def tuples(self) -> int:
        """The rows of a MULTI_INSERT: "3 tuples" before PostgreSQL 16, "ntuples: 3" since."""
        found = re.search(r"ntuples: (\d+)|(\d+) tuples", self.desc)
        assert found is not None
        return int(found[1] or found[2])


def dump(install: PostgresInstall, folder: Path, first: str, last: str) -> Iterator[DumpedRecord]:
    """Yield the records of the segments ``first`` to ``last`` of a folder."""
    program = install.program("pg_waldump")
    printed = subprocess.run(
        [program, "--path", folder, first, last], capture_output=True, check=False, text=True, errors="replace"
    )
    for line in printed.stdout.split("\n"):
        if not line.startswith("rmgr: "):
            continue  # a message of several lines
        found = _LINE.match(line)
        assert found is not None, line
        parts = (found["rel"] or "0/0/0").split("/")
        yield DumpedRecord(
            Lsn.parse(found["lsn"]),
            Lsn.parse(found["previous"].rstrip(",")),
            int(found["length"]),
            int(found["xid"]),
            found["manager"],
            found["desc"],
            (int(parts[1]), int(parts[2])),
        )
