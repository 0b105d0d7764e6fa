"""A drill's checks claim nothing that was not looked at."""

import os
from pathlib import Path

import pytest

from wal_pipeline.commands.drill.cluster_checks import ClusterChecks
from wal_pipeline.postgres.binaries import Binaries
from wal_pipeline.postgres.environment import plain_environment
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


def test_postgresqls_programs_get_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a restored server nor the user's SQL sees the stores' keys."""
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "very secret")
    monkeypatch.setenv("PGPASSWORD", "secret too")
    assert not {"R2_SECRET_ACCESS_KEY", "PGPASSWORD"} & set(plain_environment())
    assert "secret" not in checks_with(tmp_path, "env >&2; exit 1").answers().output


def checks_with(folder: Path, psql: str, timeout_seconds: float = 60) -> ClusterChecks:
    """Return checks whose psql is this line of sh."""
    (folder / "psql").write_text(f"#!/bin/sh\n{psql}\n")
    (folder / "psql").chmod(0o755)
    user, names = ServerUser(os.getuid(), os.getgid()), {"role": "postgres", "database": "postgres"}
    return ClusterChecks(Binaries(folder, 18), folder, user, **names, timeout_seconds=timeout_seconds)


def test_a_check_that_hangs_holds_up_no_drill(tmp_path: Path) -> None:
    """The user's own SQL may wait for ever."""
    check = checks_with(tmp_path, "exec sleep 60", timeout_seconds=0.2).answers()
    assert (check.ok, check.output) == (False, "it has not ended within 0.2 s")
