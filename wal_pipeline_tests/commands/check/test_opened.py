"""A check opens all that the settings name: what only a later step would open is told now, by its name."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from testbed.tls import TlsFiles
from wal_pipeline.commands.check.opened import NamedThings, check_named
from wal_pipeline.postgres.server import PostgresServer

SECRET = "s3cr3t-token"
NOWHERE = PostgresServer("host=127.0.0.1 port=1 connect_timeout=1")


def results(named: NamedThings, major: int | None = None, server: PostgresServer = NOWHERE) -> dict[str, str]:
    items = check_named(named, server, major)
    return {item.name: f"{'ok' if item.ok else 'failed'}: {item.message}" for item in items}


def only(named: NamedThings, major: int | None = None) -> str:
    """Return the result of the one item."""
    [result] = results(named, major).values()
    return result


@pytest.fixture(scope="module")
def ssh_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair as ssh-keygen makes it: the public key has a comment."""
    path = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me at home", "-f", path], check=True)
    return path


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text().strip()


def identity_file(folder: Path) -> tuple[Path, str]:
    identity = pyrage.x25519.Identity.generate()
    (folder / "age.txt").write_text(f"# made by a test\n{identity}\n")
    return folder / "age.txt", str(identity.to_public())


def test_nothing_is_named() -> None:
    """There is nothing to open."""
    assert results(NamedThings()) == {}


def test_an_ssh_key_as_recipient(ssh_key: Path) -> None:
    """It can encrypt, with a comment and without, and its private key opens what it encrypts."""
    bare = " ".join(public(ssh_key).split()[:2])
    assert results(NamedThings(recipients=(public(ssh_key), bare), identity_file=ssh_key)) == {
        "age recipients": "ok: 2 can encrypt",
        "age identity": f"ok: 1 in '{ssh_key}', which open what is encrypted",
    }


@pytest.mark.parametrize("recipient", ["ssh-ed25519", "age1x", "me@host", f"AGE-SECRET-KEY-1{SECRET}"])
def test_a_recipient_that_cannot_encrypt_is_not_ok(recipient: str) -> None:
    """With such a recipient nothing can be archived, and check said ok."""
    found = only(NamedThings(recipients=(recipient,)))
    assert found.startswith("failed: age recipient '")
    assert SECRET not in found


def test_recipients_alone(tmp_path: Path) -> None:
    """The identity need not be on this host, and the item says what it is needed for."""
    _, recipient = identity_file(tmp_path)
    assert only(NamedThings(recipients=(recipient,))) == (
        "ok: 1 can encrypt; a restore needs WAL_PIPELINE_AGE_IDENTITY_FILE, which is not set here"
    )


def test_an_identity_that_opens_nothing_is_not_ok(tmp_path: Path, ssh_key: Path) -> None:
    """The wrong identity was found out at the restore."""
    path, _ = identity_file(tmp_path)
    found = results(NamedThings(recipients=(public(ssh_key),), identity_file=path))
    assert found["age identity"] == f"failed: no identity in '{path}' opens what WAL_PIPELINE_AGE_RECIPIENTS encrypts"


@pytest.mark.parametrize("content", [None, "", "# a comment\n", "AGE-SECRET-KEY-1X\n", "ö"])
def test_an_identity_file_that_holds_none_is_not_ok(tmp_path: Path, content: str | None) -> None:
    """Missing, empty, torn: each is told."""
    path = tmp_path / "age.txt"
    if content is not None:
        path.write_text(content)
    assert only(NamedThings(identity_file=path)).startswith(f"failed: age identity file '{path}' ")


def test_an_ssh_key_with_a_passphrase(tmp_path: Path) -> None:
    """The hint says what is the matter with it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key"], check=True)
    [item] = check_named(NamedThings(identity_file=tmp_path / "key"), NOWHERE, None)
    assert (item.ok, "passphrase" in item.hint) == (False, True)


def test_each_notification_url_is_judged_by_itself() -> None:
    """One that cannot be read is told by its number, and the others are ok. Nothing of it is shown."""
    urls = ("mailto://u:p@mail.example?to=a@example.org,b@example.org", SECRET, f"nosuch://{SECRET}/", "json://h/x")
    found = results(NamedThings(notification_urls=urls))
    good = "ok: it can be read; 'wal-pipeline alerts test' sends a message"
    assert found == {
        "notification URL 1 (mailto)": good,
        "notification URL 2": "failed: notification URL 2 cannot be read",
        "notification URL 3 (nosuch)": "failed: notification URL 3 (nosuch) cannot be read",
        "notification URL 4 (json)": good,
    }
    assert SECRET not in str(found) + repr(NamedThings(notification_urls=urls))


def test_folders(tmp_path: Path) -> None:
    """A folder is written to; one that is missing is made later, where it can be made."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "there").mkdir()
    named = {
        name: tmp_path / path for name, path in {"A": "there", "B": "new/er", "C": "file/x", "D": "dangling"}.items()
    }
    assert results(NamedThings(folders=named)) == {
        "folder: A": f"ok: '{tmp_path}/there' can be written",
        "folder: B": f"ok: '{tmp_path}/new/er' can be made when it is needed",
        "folder: C": f"failed: '{tmp_path}/file/x' cannot be made in '{tmp_path}/file': Not a directory",
        "folder: D": f"failed: '{tmp_path}/dangling' cannot be written: No such file or directory",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "there"]


def test_a_folder_that_cannot_be_written() -> None:
    """Root may write everywhere but where no file can be: the file is really made."""
    assert only(NamedThings(folders={"A": Path("/proc/1/fd")})).startswith("failed: '/proc/1/fd' cannot be written: ")


def test_programs(postgres18: PostgresInstall, tmp_path: Path) -> None:
    """PGBINDIR was passed over in silence where it had no programs."""
    assert only(NamedThings(bindir=postgres18.bin_folder), 18) == (
        f"ok: '{postgres18.bin_folder}' has the programs of PostgreSQL 18"
    )
    assert only(NamedThings(bindir=postgres18.bin_folder), 19) == (
        f"failed: '{postgres18.bin_folder}' has no programs of PostgreSQL 19 or newer"
    )
    assert only(NamedThings(bindir=tmp_path)).startswith(f"failed: '{tmp_path}' lacks postgres, pg_waldump, ")
    assert only(NamedThings(bindir=tmp_path / "none")) == f"failed: '{tmp_path}/none' is no folder"


def test_files(tmp_path: Path, tls_files: TlsFiles) -> None:
    """SQL, authorities and the connection's files are read."""
    (tmp_path / "sql").write_text("SELECT 1;")
    (tmp_path / "empty").touch()
    assert only(NamedThings(sql_file=tmp_path / "sql")) == f"ok: '{tmp_path}/sql' can be read"
    assert only(NamedThings(sql_file=tmp_path / "empty")) == f"failed: '{tmp_path}/empty' is empty"
    assert (
        only(NamedThings(sql_file=tmp_path / "no"))
        == f"failed: '{tmp_path}/no' cannot be read: No such file or directory"
    )
    assert only(NamedThings(ca_bundle=tls_files.ca_bundle)).startswith("ok: 1 authorities in ")
    assert only(NamedThings(ca_bundle=tls_files.ca_bundle.parent)).startswith("ok: ")
    assert only(NamedThings(ca_bundle=tmp_path / "sql")).startswith("failed: ")
    assert only(NamedThings(connection_files={"sslcert": tmp_path / "no"})) == (
        f"failed: '{tmp_path}/no' cannot be read: No such file or directory"
    )
    assert only(NamedThings(connection_files={"sslcrldir": tmp_path})) == f"ok: '{tmp_path}' is there"


def test_the_drills_user() -> None:
    """A user that is not there would fail the drill after its restore."""
    assert only(NamedThings(owner="root")) == "ok: user 'root' is there"
    assert only(NamedThings(owner="nobody-here")) == "failed: there is no user 'nobody-here'"


@pytest.fixture
def running(shared_cluster18: PostgresCluster) -> Iterator[PostgresServer]:
    yield PostgresServer(shared_cluster18.conninfo)


@pytest.mark.integration
def test_the_drills_role_and_database(running: PostgresServer) -> None:
    """They are looked for on the live server, of which the drill restores a copy."""
    good = NamedThings(role="postgres", database="postgres")
    assert results(good, 18, running) == {
        "drill: role and database": "ok: role 'postgres' and database 'postgres' are there"
    }
    bad = NamedThings(role="drill", database="größe")
    assert results(bad, 18, running) == {
        "drill: role and database": "failed: the server has no role 'drill' and no database 'größe'"
    }
