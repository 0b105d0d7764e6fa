"""Our own comparison with PostgreSQL's manifest and pg_verifybackup say the same of every damage."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from wal_pipeline.commands.restore.files.verify import compare_with_manifest
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.base_backup_scene import archiving_cluster, verify_backup

KINDS = ("SHA224", "SHA256", "SHA384", "SHA512", "NONE")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def plain(postgres_version: PostgresInstall) -> Iterator[tuple[PostgresInstall, Path]]:
    """A base backup as PostgreSQL's own program unpacks it, with a tablespace."""
    with archiving_cluster(postgres_version) as cluster:
        space = cluster.make_tablespace("space")
        cluster.psql("CREATE TABLE moved (n int) TABLESPACE space; INSERT INTO moved SELECT generate_series(1, 20000)")
        cluster.pgbench_init()
        folder = owned_folder("plain")
        options = ("--checkpoint=fast", "--wal-method=none", f"--tablespace-mapping={space}={folder}/space")
        cluster.run("pg_basebackup", f"--pgdata={folder}/pgdata", *options)
        cluster.psql("DROP TABLE moved; DROP TABLESPACE space")
        for kind in KINDS:
            options = ("--checkpoint=fast", "--wal-method=none", f"--manifest-checksums={kind}")
            cluster.run("pg_basebackup", f"--pgdata={folder}/{kind}", *options)
    yield postgres_version, folder
    shutil.rmtree(folder)


@pytest.fixture
def copied(plain: tuple[PostgresInstall, Path], tmp_path: Path) -> Path:
    """A copy of it that the test may damage."""
    shutil.copytree(plain[1], tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns(*KINDS))
    pgdata = tmp_path / "copy/pgdata"
    [link] = (pgdata / "pg_tblspc").iterdir()
    link.unlink()
    link.symlink_to(tmp_path / "copy/space")
    return pgdata


def largest(pgdata: Path, below: str) -> Path:
    """The largest file of a folder, with links followed."""
    paths = [path for path in (pgdata / below).resolve().rglob("*") if path.is_file()]
    return max(paths, key=lambda path: path.stat().st_size)


def space(pgdata: Path) -> Path:
    """The link to the tablespace."""
    [link] = (pgdata / "pg_tblspc").iterdir()
    return link


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lengthen(pgdata: Path) -> None:
    """Add a byte to a file."""
    with largest(pgdata, "base").open("ab") as stream:
        stream.write(b"x")


def forge_the_list(pgdata: Path) -> None:
    """Take a file out of the disk and out of the list, whose own checksum stays."""
    path = pgdata / "backup_manifest"
    path.write_bytes(path.read_bytes().replace(b'"Path": "PG_VERSION"', b'"Path": "PG_VERSIOM"'))


CONTENT: dict[str, Callable[[Path], object]] = {
    "a bit of a table": lambda pgdata: flip(largest(pgdata, "base")),
    "a bit in a tablespace": lambda pgdata: flip(largest(pgdata, f"pg_tblspc/{space(pgdata).name}")),
    "a bit of the smallest file": lambda pgdata: flip(pgdata / "PG_VERSION"),
}
SHAPE: dict[str, Callable[[Path], object]] = {
    "a byte more": lengthen,
    "a file cut short": lambda pgdata: (pgdata / "PG_VERSION").write_bytes(b""),
    "a file missing": lambda pgdata: largest(pgdata, "global").unlink(),
    "a file too many": lambda pgdata: (pgdata / "base/1/77777").write_bytes(b"x"),
    "an empty file too many": lambda pgdata: (pgdata / "base/1/77778").touch(),
    "a tablespace's file too many": lambda pgdata: (space(pgdata) / "stray").touch(),
    "a tablespace's link missing": lambda pgdata: space(pgdata).unlink(),
    "the list forged": forge_the_list,
    "the list missing": lambda pgdata: (pgdata / "backup_manifest").unlink(),
    "the list cut short": lambda pgdata: (pgdata / "backup_manifest").write_bytes(
        (pgdata / "backup_manifest").read_bytes()[:-9]
    ),
}
RIGHT: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "settings of a person": lambda pgdata: (pgdata / "postgresql.auto.conf").write_text("port = 1\n"),
    "WAL": lambda pgdata: (pgdata / "pg_wal/000000010000000000000001").write_bytes(b"x"),
    "the file that begins a recovery": lambda pgdata: (pgdata / "recovery.signal").touch(),
    "an empty folder": lambda pgdata: (pgdata / "base/77777").mkdir(),
}


def opinion(pgdata: Path, **values: object) -> str | None:
    """Why we refuse a folder; None where we do not."""
    try:
        compare_with_manifest(pgdata, workers=3, **values)  # type: ignore[arg-type]
    except RestoreError as error:
        return error.message
    return None


@pytest.mark.parametrize("what", [*CONTENT, *SHAPE, *RIGHT])
def test_both_say_the_same(plain: tuple[PostgresInstall, Path], copied: Path, what: str) -> None:
    """Whatever is done to a base backup."""
    {**CONTENT, **SHAPE, **RIGHT}[what](copied)
    theirs = verify_backup(plain[0], copied)
    ours = opinion(copied)
    assert (ours is None) == ("error" not in theirs), f"ours: {ours}; PostgreSQL's: {theirs}"
    if what in SHAPE:
        assert ours is not None
    if what in RIGHT:
        assert ours is None


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_checksum_is_known(plain: tuple[PostgresInstall, Path], tmp_path: Path, kind: str) -> None:
    """A bit of a table is found out by each, and by nobody where the manifest has none."""
    folder = shutil.copytree(plain[1] / kind, tmp_path / "copy")
    assert opinion(folder) is None
    flip(largest(folder, "base"))
    found = opinion(folder)
    assert (found is None) == (kind == "NONE")
    assert found is None or f"has the {kind} " in found


def test_what_is_ignored_is_not_looked_at(copied: Path) -> None:
    """Neither a folder, nor what is in it."""
    largest(copied, "base/1").unlink()
    (copied / "lost+found").mkdir()
    (copied / "lost+found/x").touch()
    assert opinion(copied) is not None
    assert opinion(copied, ignored=["lost+found", "base/1"]) is None


def test_a_file_of_another_size_is_named_with_both(copied: Path) -> None:
    """And no more than twenty files are named."""
    (copied / "PG_VERSION").write_bytes(b"")
    version = "3"
    assert opinion(copied) == f"'{copied}' is not what was backed up:\n'PG_VERSION' has 0 bytes, expected {version}"
    shutil.rmtree(copied / "base/1")
    lines = (opinion(copied) or "").splitlines()
    assert len(lines) == 22
    assert lines[-1].startswith("and ")


def test_a_manifest_of_another_cluster_is_refused(plain: tuple[PostgresInstall, Path], copied: Path) -> None:
    """From PostgreSQL 17 on it names its cluster."""
    if plain[0].version < 17:
        pytest.skip("the manifest names no cluster")
    control = copied / "global/pg_control"
    listed = copied / "backup_manifest"
    text = listed.read_text()
    identifier = int.from_bytes(control.read_bytes()[:8], "little")
    body = text[: text.rindex('"Manifest-Checksum"')].replace(str(identifier), str(identifier + 1))
    listed.write_text(f'{body}"Manifest-Checksum": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n')
    assert "error" in verify_backup(plain[0], copied)
    assert opinion(copied) == (
        f"'{copied}' is not what was backed up:\nthe system identifier is {identifier}, expected {identifier + 1} by "
        "PostgreSQL's manifest"
    )
