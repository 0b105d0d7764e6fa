"""The words of pg_basebackup and of the server are read: what is lost, what is damaged, what is worth a warning."""

import pytest

from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.postgres.backup_words import BackupWords, program_warnings

PAGE = 'WARNING:  checksum verification failed in file "./base/5/16384", block {}: calculated {:X} but expected 5E5E'


def read(*lines: str) -> BackupWords:
    """Read lines of standard error."""
    words = BackupWords()
    for line in lines:
        words.take(line)
    return words


def test_what_a_good_base_backup_says_is_no_warning() -> None:
    """Progress and notices, as PostgreSQL 15 and 18 print them, and sockets, which no restore needs."""
    words = read(
        "pg_basebackup: initiating base backup, waiting for checkpoint to complete",
        "pg_basebackup: checkpoint completed",
        "NOTICE:  base backup done, waiting for required WAL segments to be archived",
        "WARNING:  still waiting for all required WAL segments to be archived (60 seconds elapsed)",
        'HINT:  Check that your "archive_command" is executing properly.',
        "NOTICE:  all required WAL segments have been archived",
        'WARNING:  skipping special file "./.s.PGSQL.5432"',
        "pg_basebackup: base backup completed",
    )
    assert (words.warnings, words.lost, words.damaged_pages) == ((), (), ())


@pytest.mark.parametrize(
    "path",
    [
        "./base/16384",
        "./base",
        "./base/5/1259",
        "./global/1262",
        "./pg_xact",
        "./pg_multixact/offsets",
        "pg_tblspc/16385/PG_18_202506291/5",
        "./PG_VERSION",
        "./pg_twophase",
    ],
)
def test_a_file_that_the_cluster_needs_is_never_a_mere_warning(path: str) -> None:
    """PostgreSQL warns and ends well, and the database is not in the base backup."""
    words = read(f'WARNING:  skipping special file "{path}"', f'WARNING:  skipping special file "{path}"')
    assert words.lost == (path.removeprefix("./"),)
    assert words.warnings == ()


@pytest.mark.parametrize("path", ["./pg_hba.conf", "./postgresql.conf", "./log", "./pg_stat", "./mine/link"])
def test_a_file_without_which_the_data_is_whole_is_a_warning(path: str) -> None:
    """It stays with the base backup."""
    words = read(f'WARNING:  skipping special file "{path}"')
    assert (words.warnings, words.lost) == ((f'skipping special file "{path}"',), ())


def test_damaged_pages_are_named_with_file_and_block() -> None:
    """The server names five of a file, then the number of all: 15 and 18 print the same lines."""
    words = read(
        *(PAGE.format(block, 0xB06B + block) for block in (7, 3, 4, 5, 6)),
        'WARNING:  further checksum verification failures in file "./base/5/16384" will not be reported',
        'WARNING:  file "./base/5/16384" has a total of 7 checksum verification failures',
        PAGE.format(0, 1).replace("16384", "2619_fsm"),
        "WARNING:  8 total checksum verification failures",
        "pg_basebackup: error: checksum error occurred",
    )
    assert words.damaged_pages == (
        DamagedPages("base/5/16384", (3, 4, 5, 6, 7), 7),
        DamagedPages("base/5/2619_fsm", (0,), 1),
    )
    assert (words.warnings, words.lost) == ((), ())


def test_another_language_hides_nothing() -> None:
    """A role that may not set lc_messages gets the server's language (here its German and French translations)."""
    words = read(
        "WARNUNG:  überspringe besondere Datei »./base/16384«",
        "ATTENTION:  ignore le fichier spécial « ./global/1262 »",
        "WARNUNG:  Prüfsummenüberprüfung fehlgeschlagen in Datei »./base/5/16385«, Block 3: berechnet B06B, "
        "aber erwartet 5E5E",
        "WARNUNG:  weitere Prüfsummenfehler in Datei »./base/5/16385« werden nicht berichtet",
        "WARNUNG:  Datei »./base/5/16385« hat insgesamt 7 Prüfsummenfehler",
        "HINWEIS:  alle benötigten WAL-Segmente wurden archiviert",
    )
    assert words.lost == ("base/16384", "global/1262")
    assert words.damaged_pages == (DamagedPages("base/5/16385", (3,), 7),)
    assert words.warnings == ()


def test_other_warnings_of_server_and_program_are_kept_once() -> None:
    """A checksum that could not be compared, and what pg_basebackup itself warns of."""
    odd = 'could not verify checksum in file "./base/5/1", block 2: read buffer size 100 and page size 8192 differ'
    words = read(
        "WARNING:  aborting is near",
        "WARNING:  aborting is near",
        "pg_basebackup: warning: could not set compression flag",
        f"WARNING:  {odd}",
    )
    assert words.warnings == ("aborting is near", "could not set compression flag", odd)
    assert words.damaged_pages == ()


def test_a_flood_of_warnings_is_bounded_and_counted() -> None:
    """Thousands of links in a log folder must not fill the record."""
    words = read(*(f'WARNING:  skipping special file "./log/{number}"' for number in range(1000)))
    assert len(words.warnings) == 201
    assert words.warnings[-1] == "and 800 more warnings"


def test_warnings_of_the_other_programs_are_read() -> None:
    """pg_combinebackup's, pg_verifybackup's, pg_amcheck's and psql's, each once; other words are none."""
    said = """\
pg_combinebackup: warning: only some backups have checksums enabled
pg_combinebackup: warning: only some backups have checksums enabled
pg_combinebackup: hint: Disable, and optionally reenable, checksums on the output directory to avoid failures.
pg_amcheck: warning: skipping database "postgres": amcheck is not installed
psql:<stdin>:1: WARNING:  no orders today
NOTICE:  a notice
"""
    assert program_warnings(said) == (
        "pg_combinebackup: warning: only some backups have checksums enabled",
        'pg_amcheck: warning: skipping database "postgres": amcheck is not installed',
        "psql:<stdin>:1: WARNING:  no orders today",
    )
    assert program_warnings("\n".join(f"pg_x: warning: {number}" for number in range(203)))[-1] == "and 3 more warnings"
