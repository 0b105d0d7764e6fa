"""Finding PostgreSQL's programs."""

from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline.errors import PostgresError
from wal_pipeline.postgres.binaries import Binaries, find_binaries


@pytest.fixture(autouse=True)
def no_bindir(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what the developer's own environment says."""
    monkeypatch.delenv("PGBINDIR", raising=False)


def make_program(folder: Path, name: str, version: str) -> Path:
    """Make a program that prints a version as PostgreSQL's do."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
    program.chmod(0o755)
    return program


def test_the_real_programs_are_found(postgres_version: PostgresInstall) -> None:
    """Each version that is installed is found, with its programs, without any setting."""
    found = find_binaries(postgres_version.version, exactly=True, programs=("pg_waldump", "postgres", "pg_basebackup"))
    assert found.major == postgres_version.version
    assert found.program("pg_waldump").is_file()


@pytest.mark.parametrize("version", ["97.1", "97devel", "97beta2", "97.3 (Debian 97.3-1.pgdg120+1)"])
def test_versions_as_releases_print_them(tmp_path: Path, version: str) -> None:
    """The major version is read from releases, betas and packagers' builds."""
    make_program(tmp_path, "pg_waldump", version)
    assert find_binaries(97, bindir=tmp_path, search_path="") == Binaries(tmp_path, 97)


def test_the_wanted_version_goes_before_a_newer_one(tmp_path: Path) -> None:
    """Of several, the wanted version is taken, else the nearest newer one, never an older one."""
    for version in (95, 99, 97):
        make_program(tmp_path / str(version), "pg_waldump", f"{version}.1")
    path = ":".join(str(tmp_path / version) for version in ("95", "99", "97"))
    assert find_binaries(97, search_path=path).bindir == tmp_path / "97"
    assert find_binaries(96, search_path=path).bindir == tmp_path / "97"
    assert find_binaries(98, search_path=path).bindir == tmp_path / "99"


def test_a_folder_that_cannot_be_looked_into_is_passed_over(tmp_path: Path) -> None:
    """PATH may name what the system refuses to look at: root's folders after 'su', or a name that is too long."""
    make_program(tmp_path / "good", "pg_waldump", "97.1")
    path = f"/{'x' * 300}:{tmp_path / 'good'}"
    assert find_binaries(97, search_path=path).bindir == tmp_path / "good"


def test_bindir_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of folders with the same version, the given one or PGBINDIR wins over PATH."""
    for place in ("given", "path"):
        make_program(tmp_path / place, "pg_waldump", "97.1")
    path = str(tmp_path / "path")
    assert find_binaries(97, bindir=tmp_path / "given", search_path=path).bindir == tmp_path / "given"
    monkeypatch.setenv("PGBINDIR", str(tmp_path / "given"))
    monkeypatch.setenv("PATH", path)
    assert find_binaries(97).bindir == tmp_path / "given"
    monkeypatch.delenv("PGBINDIR")
    assert find_binaries(97).bindir == tmp_path / "path"


def test_pg_config_tells_the_folder(tmp_path: Path) -> None:
    """Where only pg_config is on PATH, the folder that it names is used."""
    make_program(tmp_path / "lib", "pg_waldump", "97.1")
    (tmp_path / "path").mkdir()
    config = tmp_path / "path" / "pg_config"
    config.write_text(f"#!/bin/sh\necho '{tmp_path / 'lib'}'\n")
    config.chmod(0o755)
    assert find_binaries(97, search_path=str(tmp_path / "path")).bindir == tmp_path / "lib"


def test_a_folder_must_have_all_programs(tmp_path: Path) -> None:
    """A folder that lacks one of the programs, or has them of two versions, is passed over."""
    make_program(tmp_path / "client", "psql", "97.1")
    make_program(tmp_path / "mixed", "psql", "97.1")
    make_program(tmp_path / "mixed", "pg_waldump", "98.1")
    for program in ("psql", "pg_waldump"):
        make_program(tmp_path / "whole", program, "97.1")
    path = ":".join(str(tmp_path / place) for place in ("client", "mixed", "whole"))
    assert find_binaries(97, programs=("psql", "pg_waldump"), search_path=path).bindir == tmp_path / "whole"


def test_debians_wrapper_is_passed_over(tmp_path: Path) -> None:
    """Debian's links to a script that picks a version by itself are no programs of one version."""
    wrapper = make_program(tmp_path / "share", "pg_wrapper", "97.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pg_waldump").symlink_to(wrapper)
    with pytest.raises(PostgresError):
        find_binaries(97, search_path=str(tmp_path / "bin"))


def test_an_upgraded_package_is_noticed(tmp_path: Path) -> None:
    """A program that was replaced is asked for its version again."""
    make_program(tmp_path, "pg_waldump", "97.1")
    assert find_binaries(97, bindir=tmp_path, search_path="").major == 97
    make_program(tmp_path, "pg_waldump", "98.1")
    assert find_binaries(97, bindir=tmp_path, search_path="").major == 98


def test_what_does_not_answer_is_passed_over(tmp_path: Path) -> None:
    """A file that cannot run, or that fails, is no program."""
    broken = make_program(tmp_path / "broken", "pg_waldump", "97.1")
    broken.write_bytes(b"\x7fELF of another machine")
    failing = make_program(tmp_path / "failing", "pg_waldump", "97.1")
    failing.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(PostgresError):
        find_binaries(97, search_path=f"{broken.parent}:{failing.parent}")


def test_the_error_names_where_it_looked(tmp_path: Path) -> None:
    """The error names the program, the version, and each folder with the version found there."""
    make_program(tmp_path, "pg_waldump", "12.1")
    with pytest.raises(PostgresError) as caught:
        find_binaries(97, exactly=True, bindir=tmp_path, search_path="")
    assert caught.value.message.startswith(f"no 'pg_waldump' of PostgreSQL 97 found in '{tmp_path}' (12)")
    assert caught.value.hint == (
        "Install PostgreSQL 97's server package, or set PGBINDIR to the folder that holds its programs."
    )


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """Asking a folder for a program that it lacks names both."""
    with pytest.raises(PostgresError) as caught:
        Binaries(tmp_path, 18).program("pg_combinebackup")
    assert caught.value.message == f"'{tmp_path}' of PostgreSQL 18 has no program 'pg_combinebackup'"
