"""Starts the command line ``wal-pipeline``; ``archive-get`` starts without click, which takes longer to import."""

import sys
from importlib import import_module
from typing import Final, NoReturn

from wal_pipeline.host.gc_pause import collect_seldom

_NOT_CLICK: Final = {"archive-get": "wal_pipeline.cli.archive_get"}


def main() -> NoReturn:
    """Run the command line and leave with its exit code.

    0: done. 1: an error of ours, with its hint. 2: the command line was not understood. 130: interrupted.
    ``archive-get`` has exit codes of its own, which PostgreSQL reads.
    """
    collect_seldom()
    if len(sys.argv) > 1 and sys.argv[1] in _NOT_CLICK:
        import_module(_NOT_CLICK[sys.argv[1]]).main(sys.argv[2:])
    from wal_pipeline.cli.group import run

    sys.exit(run(sys.argv[1:]))
