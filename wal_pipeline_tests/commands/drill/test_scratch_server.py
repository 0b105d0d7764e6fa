"""A drill's checks claim nothing that was not looked at."""

import os
from pathlib import Path

from wal_pipeline.commands.drill.scratch_server import ClusterChecks
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.recovery_server import ServerUser


def checks(folder: Path, amcheck: str) -> ClusterChecks:
    """Return checks whose pg_amcheck does what a line of shell says."""
    program = folder / "pg_amcheck"
    program.write_text(f"#!/bin/sh\n{amcheck}\n")
    program.chmod(0o755)
    user = ServerUser(os.geteuid(), os.getegid())
    return ClusterChecks(Binaries(folder, 18), folder, user, role="postgres", database="postgres", timeout_seconds=60)


def test_a_database_that_pg_amcheck_left_out_is_not_called_sound(tmp_path: Path) -> None:
    """It warns of that and ends well."""
    words = 'pg_amcheck: warning: skipping database "shop": amcheck is not installed'
    found = checks(tmp_path, f"echo '{words}' >&2").amcheck()
    assert (found.ok, found.output, found.warnings) == (False, words, (words,))


def test_another_warning_of_a_check_is_kept(tmp_path: Path) -> None:
    """The check is good, and a person sees it."""
    words = "pg_amcheck: warning: option --checkunique is not supported by amcheck version 1.3"
    found = checks(tmp_path, f"echo '{words}' >&2").amcheck()
    assert (found.ok, found.output, found.warnings) == (True, "", (words,))
