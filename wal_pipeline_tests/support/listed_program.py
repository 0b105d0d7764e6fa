"""Runs the program with lists of databases from a file: ``python -m … LISTS WORDS…``, as PostgreSQL's user."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wal_pipeline.cli.main import main
from wal_pipeline.commands.restore import prepare


@dataclass(frozen=True, slots=True)
class NamedOid:
    """A database of a list."""

    oid: int
    name: str


@dataclass(frozen=True, slots=True)
class NamedOids:
    """A list of databases, as of a moment."""

    taken_at: datetime
    databases: tuple[NamedOid, ...]


def lists_of(path: Path) -> list[NamedOids]:
    """Return the lists that a file has."""
    return [
        NamedOids(datetime.fromisoformat(at), tuple(NamedOid(oid, name) for oid, name in databases))
        for at, databases in json.loads(path.read_text())
    ]


if __name__ == "__main__":
    found = lists_of(Path(sys.argv[1]))

    def read(*_arguments: object) -> tuple[Sequence[NamedOids], Sequence[str]]:
        return found, []

    prepare.read_database_lists = read
    sys.argv = ["wal-pipeline", *sys.argv[2:]]
    main()
