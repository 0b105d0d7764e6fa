"""With which configuration a restored server starts, and what is written of the one that was kept."""

from pathlib import Path
from typing import Any

import pytest

from wal_pipeline.archive.format.configuration import KeptConfiguration
from wal_pipeline.commands.restore.places.configuration import (
    ConfigurationPlan,
    find_outside,
    plan_configuration,
    write_configuration,
)

ETC = "/etc/postgresql/15/main"
FILES = {
    f"{ETC}/postgresql.conf": b"data_directory = '/var/lib/postgresql/15/main'\nssl = on\n"
    b"ssl_cert_file = '/none/cert.pem'\nunix_socket_directories = '/none/run, /tmp'\ninclude_dir 'conf.d'\n",
    f"{ETC}/pg_hba.conf": b"include 'more'\nlocal @dbs all peer\n",
    f"{ETC}/more": b"",
    f"{ETC}/dbs": b"app\n",
    f"{ETC}/pg_ident.conf": b"",
    f"{ETC}/conf.d/a.conf": b"include '/etc/common.conf'\n",
    "/etc/common.conf": b"work_mem = '7MB'\n",
}
KEPT = KeptConfiguration(
    "/var/lib/postgresql/15/main",
    f"{ETC}/postgresql.conf",
    f"{ETC}/pg_hba.conf",
    f"{ETC}/pg_ident.conf",
    FILES,
    folders=(f"{ETC}/conf.d",),
    links={"pg_wal": "/wal", "pg_log": "/log"},
)


def plan(pgdata: Path, place: Path, *, own: bool | None = False, **given: Any) -> ConfigurationPlan:
    """Plan for a data directory of PostgreSQL 15."""
    values = {"kept": KEPT, "given": None, "wanted": None, **given}
    return plan_configuration(pgdata, 15, has_own=lambda: own, place=place, **values)


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """This machine's configuration for a data directory."""
    folder = tmp_path / "etc/15/main"
    folder.mkdir(parents=True)
    (folder / "postgresql.conf").write_text(f"#data_directory = '/x'\ndata_directory = '{tmp_path}/new'\n")
    return tmp_path / "etc"


def test_what_was_kept_is_written_where_this_machine_has_none(tmp_path: Path) -> None:
    """The plan names the files, what is missing on this machine, and the links that are not made."""
    found = plan(tmp_path / "new", tmp_path / "etc")
    assert (found.write, found.trouble) == (True, None)
    assert found.notes[0].startswith("the original's configuration was outside its data directory: /etc/common.conf, ")
    assert [note for note in found.notes if "names" in note] == [
        "the configuration names '/none/run' (unix_socket_directories), which is not on this machine",
        "the configuration names '/none/cert.pem' (ssl_cert_file), which is not on this machine",
    ]
    assert found.notes[-2].endswith(
        "a link to '/wal', and is none in the restored one; --waldir puts it on a disk of its own"
    )
    assert "'pg_log' in the original's data directory was a link to '/log'" in found.notes[-1]


def test_this_machines_own_is_used(tmp_path: Path, debian: Path) -> None:
    """Nothing is written, unless a person wants it so."""
    assert find_outside(tmp_path / "new", 15, debian) == debian / "15/main/postgresql.conf"
    assert find_outside(tmp_path / "other", 15, debian) is None
    found = plan(tmp_path / "new", debian)
    assert (found.write, found.trouble) == (False, None)
    assert f"the server starts with '{debian}/15/main/postgresql.conf' of this machine" in found.notes[1]
    assert plan(tmp_path / "new", debian, wanted=True).write
    assert not plan(tmp_path / "new", tmp_path, given=Path("/x.conf")).write


@pytest.mark.parametrize(("own", "is_trouble"), [(True, False), (None, False), (False, True)])
def test_without_anything_kept_the_base_backup_tells(tmp_path: Path, own: bool | None, is_trouble: bool) -> None:
    """Trouble is claimed only where PostgreSQL's own file list was looked at."""
    found = plan(tmp_path / "new", tmp_path, kept=None, own=own)
    assert (found.trouble is not None) == is_trouble
    assert bool(found.notes) == is_trouble
    assert plan(tmp_path / "new", tmp_path, kept=None, own=own, given=Path("/x.conf")).trouble is None


def test_a_file_that_could_not_be_read_is_told(tmp_path: Path) -> None:
    """Without the main file the server cannot start, and that is said before the download."""
    kept = KeptConfiguration("/pg", "/etc/c", "/pg/h", "/pg/i", missing={"/etc/c": "'/etc/c' cannot be read: no"})
    found = plan(tmp_path / "new", tmp_path, kept=kept)
    assert found.notes == ("not kept with the base backup: '/etc/c' cannot be read: no",)
    assert found.trouble is not None


def test_the_written_files_name_each_other(tmp_path: Path) -> None:
    """And nothing of the original's places is left that the server would use."""
    pgdata = tmp_path / "new"
    pgdata.mkdir()
    write_configuration(plan(pgdata, tmp_path / "none"), pgdata)
    mirror = f"restored-configuration{ETC}"
    conf = (pgdata / "postgresql.conf").read_text()
    assert "#data_directory" in conf
    assert f"include_dir '{mirror}/conf.d'" in conf
    assert (pgdata / "pg_hba.conf").read_text() == f'include "{mirror}/more"\nlocal @"{mirror}/dbs" all peer\n'
    assert (pgdata / mirror / "conf.d/a.conf").read_text() == "include '../../../../common.conf'\n"
    assert (pgdata / mirror / "conf.d" / "../../../../common.conf").resolve().read_text() == "work_mem = '7MB'\n"
    assert {path.stat().st_mode & 0o777 for path in pgdata.rglob("*") if path.is_file()} == {0o600}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A file that is there stays, also one that an earlier restore wrote, and a link is not followed."""
    pgdata = tmp_path / "new"
    (pgdata / "restored-configuration").mkdir(parents=True)
    (pgdata / "postgresql.conf").write_text("mine\n")
    (tmp_path / "precious").write_text("mine\n")
    (pgdata / "pg_hba.conf").symlink_to(tmp_path / "precious")
    write_configuration(plan(pgdata, tmp_path / "none"), pgdata)
    assert (pgdata / "postgresql.conf").read_text() == "mine\n"
    assert (tmp_path / "precious").read_text() == "mine\n"
    assert list((pgdata / "restored-configuration").iterdir()) == []
    assert (pgdata / f"restored-configuration.1{ETC}/postgresql.conf").is_file()
