"""Puts the files of tests into an order in which no worker is alone at the end: the longest first."""

from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
# Each takes half a minute or more, most of it waiting for servers. The longest first; a file that is
# not here costs at most its own time at the end.
LONGEST: Final = tuple(
    TESTS / name
    for name in (
        "test_secrets.py",
        "test_documents.py",
        "integration/test_demo.py",
        "integration/test_ship_run.py",
        "integration/test_daemon.py",
        "integration/test_bad_copies.py",
        "integration/test_chaos.py",
        "integration/test_restore_places.py",
        "integration/test_restore_tail.py",
        "integration/test_archive.py",
        "integration/test_backup_nights.py",
        "integration/test_restore_beside.py",
        "integration/test_restore_bounds.py",
        "integration/test_ship.py",
        "integration/test_restore_command.py",
        "test_stateful.py",
    )
)


def place(path: Path, *, has_servers: bool) -> int:
    """Return the place of a file: the longest, those with real servers, and the quick ones, which fill the gaps."""
    return LONGEST.index(path) if path in LONGEST else len(LONGEST) + (not has_servers)
