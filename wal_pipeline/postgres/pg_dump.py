"""Runs ``pg_dump`` and ``pg_restore``: writes a dump, counts the rows in it, and loads it in one transaction."""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from wal_pipeline.archive.recovery.names.identifiers import quote_identifier, quoted_name
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries, find_binaries
from wal_pipeline.text import hidden

PROGRAMS: Final = ("pg_dump", "pg_restore")
_IDENTIFIER: Final = rb'"(?:[^"]|"")+"|[^\s".]+'
_COPY: Final = re.compile(rb"COPY (?P<schema>" + _IDENTIFIER + rb")\.(?P<name>" + _IDENTIFIER + rb") .*FROM stdin;\n\Z")
_END_OF_COPY: Final = b"\\.\n"
_BUFFER_BYTES: Final = 1 << 20
_SCHEMA_ENTRY: Final = re.compile(r"\d+; 2615 \d+ SCHEMA ")  # pg_namespace has the oid 2615 (pg_namespace.h)
_TAIL_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class DumpChoice:
    """The part of a database that a dump holds: these relations, one schema, or with neither all of it.

    ``relations`` are pairs of a schema and a name. ``encoding`` is that of the names here and of the dump's text; None:
    the database's own.
    """

    relations: tuple[tuple[str, str], ...] = ()
    schema: str | None = None
    encoding: str | None = "UTF8"

    def arguments(self) -> list[str]:
        """Return the arguments of ``pg_dump``. No name is a pattern: all but the plainest are in quotes."""
        chosen = [f"--table={quoted_name(schema, name)}" for schema, name in self.relations]
        chosen += [] if self.schema is None else [f"--schema={quote_identifier(self.schema)}"]
        strict = ["--strict-names"] if chosen else []
        return [*chosen, *strict, *([] if self.encoding is None else [f"--encoding={self.encoding}"])]


def find_dump_programs(major: int, bindir: Path | None = None) -> Binaries:
    """Find ``pg_dump`` and ``pg_restore`` of a major version, or of the nearest newer one.

    Raises: PostgresError, which names the package to install.
    """
    try:
        return find_binaries(major, programs=PROGRAMS, bindir=bindir)
    except PostgresError as error:
        raise PostgresError(
            error.message,
            hint=f"Install PostgreSQL's client programs: postgresql-client-{major} (Debian, Ubuntu) or "
            f"postgresql{major} (the project's RPMs); or set PGBINDIR to the folder that holds them.",
        ) from None


class DumpPrograms:
    """PostgreSQL's dump programs of one installation, each run with an environment of its own.

    ``secret`` is kept out of their messages.
    """

    def __init__(self, binaries: Binaries, environment: Mapping[str, str], *, secret: str = "") -> None:
        """``environment`` tells libpq where the database is."""
        self._binaries = binaries
        self._environment = {**environment, "LC_ALL": "C"}
        self._secret = secret

    def dump(self, choice: DumpChoice, file: BinaryIO, *, snapshot: str, options: Sequence[str] = ()) -> None:
        """Write a dump in custom format into an open file, of the moment of an exported snapshot.

        Raises: PostgresError with the program's own words.
        """
        words = ["--format=custom", "--no-password", f"--snapshot={snapshot}", *options, *choice.arguments()]
        self._run("pg_dump", words, stdout=file)

    def count_rows(self, dump: Path) -> dict[tuple[str, str], int]:
        """Return the rows of each table in a dump, by schema and name, from reading all of them as a load would.

        Raises: PostgresError where the dump cannot be read.
        """
        with self._reading("pg_restore", ["--data-only", "--file=-", str(dump)]) as lines:
            return count_copied(lines)

    def entries(self, dump: Path, *, with_schema: bool) -> str:
        """Return the table of contents of a dump, without the entry that makes the schema unless it is wanted.

        Raises: PostgresError.
        """
        lines = self._run("pg_restore", ["--list", str(dump)]).splitlines(keepends=True)
        return "".join(line for line in lines if with_schema or not _SCHEMA_ENTRY.match(line))

    def load(self, dump: Path, entries: Path, conninfo: str) -> None:
        """Load these entries of a dump into a database, all of them in one transaction or nothing.

        ``conninfo`` holds no password: a command line can be read by everyone. Raises: PostgresError.
        """
        words = ["--single-transaction", "--no-owner", "--no-privileges", "--no-tablespaces", "--no-password"]
        self._run("pg_restore", [*words, f"--use-list={entries}", f"--dbname={conninfo}", str(dump)])

    def _run(self, program: str, words: Sequence[str], stdout: BinaryIO | None = None) -> str:
        command = [str(self._binaries.program(program)), *words]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=subprocess.PIPE,
                check=False,
                cwd="/",
                env=self._environment,
            )
        except OSError as error:
            raise PostgresError(f"'{command[0]}' cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            raise self._failure(program, done.stderr)
        return "" if done.stdout is None else done.stdout.decode("utf-8", "backslashreplace")

    @contextmanager
    def _reading(self, program: str, words: Sequence[str]) -> Iterator[Iterable[bytes]]:
        """Give a program's output line by line; its end must be reached. Raises: PostgresError."""
        command = [str(self._binaries.program(program)), *words]
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    cwd="/",
                    env=self._environment,
                    bufsize=_BUFFER_BYTES,
                )
            except OSError as error:
                raise PostgresError(f"'{command[0]}' cannot be started: {error.strerror}") from error
            with process:
                try:
                    yield process.stdout or ()
                except BaseException:
                    process.kill()
                    raise
            said.seek(0)
            if process.returncode != 0:
                raise self._failure(program, said.read())

    def _failure(self, program: str, stderr: bytes) -> PostgresError:
        lines = stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-_TAIL_LINES:]
        return PostgresError(f"{program} failed: {hidden(' '.join(' '.join(lines).split()), [self._secret])}")


def count_copied(lines: Iterable[bytes]) -> dict[tuple[str, str], int]:
    """Count the rows of each ``COPY`` in a script of ``pg_restore``, by schema and name.

    In the text format of ``COPY`` a row is one line: a newline in a value is written as ``\\n``.
    """
    found: dict[tuple[str, str], int] = {}
    table: tuple[str, str] | None = None
    rows = 0
    for line in lines:
        if table is None:
            match = _COPY.match(line) if line.startswith(b"COPY ") else None
            if match is not None:
                table, rows = (_plain(match["schema"]), _plain(match["name"])), 0
        elif line == _END_OF_COPY:
            found[table] = found.get(table, 0) + rows
            table = None
        else:
            rows += 1
    return found


def _plain(identifier: bytes) -> str:
    text = identifier.decode("utf-8", "backslashreplace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
