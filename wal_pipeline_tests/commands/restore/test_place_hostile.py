"""A base backup that somebody forged, on a store that answers as it should: nothing is written outside the target.

Manifest and checksums are true of the forged tars, so that only what is in them can be refused.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from wal_pipeline.archive.format.base_backup.manifest import BackupTablespace
from wal_pipeline.commands.restore.checks import TablespaceMove, map_tablespaces
from wal_pipeline.commands.restore.download import BaseBackupSource
from wal_pipeline.commands.restore.folders import check_folders
from wal_pipeline.commands.restore.place import extract_base_backup, write_tablespace_map
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.base import Body
from wal_pipeline_tests.support.archive_scene import folder_store
from wal_pipeline_tests.support.manifests import LAYOUT
from wal_pipeline_tests.support.tars import forge, member, volume

GOOD = ("global", "pg_tblspc", "base")
OID = 16384
SPACE = "pg_tblspc/16384"


@dataclass(frozen=True, slots=True)
class Target:
    """The folders of a restore, with a neighbour that must stay as it is."""

    folder: Path

    @property
    def pgdata(self) -> Path:
        return self.folder / "target" / "pgdata"

    @property
    def space(self) -> Path:
        return self.folder / "target" / "space"

    def restore(self, base: bytes, space: bytes | None = None) -> None:
        """Store these tars as a base backup, and extract it."""
        store = folder_store("r2", self.folder / "store")
        spaces = {} if space is None else {OID: self.space}
        tars = {"base": base} if space is None else {str(OID): space, "base": base}
        manifest = forge(tars)
        for name, data in tars.items():
            store.put_if_absent(LAYOUT.base_key(manifest.backup_id, volume(name)), Body.of(data), {})
        listed = LAYOUT.base_key(manifest.backup_id, manifest.backup_manifest.name)
        store.put_if_absent(listed, Body.of(b"{}"), {})
        staging = self.folder / "target" / "staging"
        staging.mkdir()
        source = BaseBackupSource(manifest, LAYOUT, [store], staging=staging)
        extract_base_backup(manifest, source, self.pgdata, spaces)

    def outside(self) -> dict[str, tuple[int, bytes]]:
        """Return all that lies beside the target and the store, with modes and contents."""
        folder = self.folder / "outside"
        return {
            str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in (folder, *folder.rglob("*"))
        }


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A target; in the end its neighbour is as it was, and no file came anywhere else."""
    (tmp_path / "target").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"precious")
    made = Target(tmp_path)
    before = made.outside()
    yield made
    assert made.outside() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"target", "outside", "store"}
    links = [path for path in made.pgdata.rglob("*") if path.is_symlink()]
    assert {path.readlink() for path in links} <= {made.space}


def make_tar(*members: tarfile.TarInfo, format_: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return the folders of a cluster and then these members, each file of which holds ``evil``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for name in GOOD:
            tar.addfile(member(name, tarfile.DIRTYPE))
        for one in members:
            tar.addfile(one, io.BytesIO(b"evil" if one.isreg() else b""))
    return buffer.getvalue()


def refused(target: Target, base: bytes, space: bytes | None = None) -> str:
    with pytest.raises(RestoreError) as caught:
        target.restore(base, space)
    return caught.value.message


@pytest.mark.parametrize("in_space", [False, True])
@pytest.mark.parametrize("name", ["/{}/outside/file", "../../outside/file", "base/../../../outside/file", "base/.."])
def test_a_name_that_leaves_the_folder(target: Target, name: str, in_space: bool) -> None:
    """Absolute or with `..`, in the base tar or a tablespace's: the name is told."""
    name = name.format(str(target.folder).lstrip("/"))
    bad = make_tar(member(name))
    message = refused(target, make_tar(), bad) if in_space else refused(target, bad)
    assert message == f"the base backup's tar holds the name '{name}', expected one below the data directory"


def test_a_name_in_two_fields(target: Target) -> None:
    """ustar parts a long name into two fields: they are looked at together."""
    name = f"../../outside/{'d' * 80}/{'f' * 80}"
    assert refused(target, make_tar(member(name))) == (
        f"the base backup's tar holds the name '{name}', expected one below the data directory"
    )


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["GNU long name", "extended header"])
def test_a_name_in_an_extended_header(target: Target, format_: int) -> None:
    """PostgreSQL writes no extended headers: a name that would come from one is not read at all."""
    message = refused(target, make_tar(member("../../outside/" + "x" * 300), format_=format_))
    assert "expected only files and folders" in message


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE],
    ids=["symbolic link", "hard link", "character device", "block device", "FIFO", "contiguous file"],
)
def test_a_member_that_is_no_file_and_no_folder(target: Target, kind: bytes) -> None:
    """And what would go through it is never reached."""
    to = str(target.folder / "outside" / "file")
    message = refused(target, make_tar(member("base/way", kind, to=to), member("base/way/file")))
    assert message == f"the base backup's tar holds 'base/way' of type {kind!r}, expected only files and folders"
    assert not os.path.lexists(target.pgdata / "base" / "way")


def test_a_link_over_a_tablespace(target: Target) -> None:
    """A tablespace's place in pg_tblspc is a folder in the tar, or nothing: a link there is refused."""
    message = refused(target, make_tar(member(SPACE, tarfile.SYMTYPE, to=str(target.folder / "outside"))), make_tar())
    assert message.startswith(f"the base backup's tar holds '{SPACE}' of type ")


def test_files_in_the_place_of_a_tablespace(target: Target) -> None:
    """They would be hidden by the link: the restore ends with a clear error."""
    message = refused(target, make_tar(member(f"{SPACE}/PG_18_1/x")), make_tar())
    assert message == f"the link '{target.pgdata / SPACE}' to a tablespace cannot be made: Directory not empty"


def test_a_forged_tablespace_map(target: Target) -> None:
    """The server makes links from it as it starts: one that came in the tar never stays."""
    target.restore(make_tar(member("tablespace_map")))
    assert (target.pgdata / "tablespace_map").read_bytes() == b"evil"
    write_tablespace_map(target.pgdata, ())
    assert not (target.pgdata / "tablespace_map").exists()
    (target.pgdata / "tablespace_map").symlink_to(target.folder / "outside" / "file")
    move = TablespaceMove(OID, Path("/srv/space"), target.space)
    write_tablespace_map(target.pgdata, (move,))
    assert (target.pgdata / "tablespace_map").read_text() == f"{OID} {target.space}\n"
    (target.pgdata / "tablespace_map").unlink()
    (target.pgdata / "tablespace_map").mkdir()
    with pytest.raises(RestoreError, match="tablespace_map' cannot be written: Is a directory"):
        write_tablespace_map(target.pgdata, (move,))


def test_force_empties_no_folder_that_a_manifest_names(target: Target) -> None:
    """--force is for what was a cluster: a forged tablespace at somebody's folder does not empty it."""
    outside = target.folder / "outside"
    moves = map_tablespaces(replace(forge({}), tablespaces=(BackupTablespace(OID, str(outside)),)), {})
    with pytest.raises(RestoreError) as caught:
        check_folders(target.pgdata, moves, force=True)
    assert caught.value.message == f"the tablespace folder '{outside}' holds 'file', which is not of a tablespace"
