"""A base backup that was read file by file is restored to any moment: whole, over an old cluster, and after kills.

An older one, which is one long tar, goes the same ways; less is saved there.
"""

import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from wal_pipeline.commands.restore.files.verify import VerifyWith
from wal_pipeline.commands.restore.perform import RestoreCommand, RestoreResult, perform_restore
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.killed_restore import kill_restore, prepared
from wal_pipeline_tests.support.restore_history import History, Moment, restored

pytestmark = pytest.mark.integration
NOT_RESTORED = {"recovery.signal", "postgresql.auto.conf", ".wal-pipeline-restore", "tablespace_map"}


@dataclass(frozen=True, slots=True)
class Lost:
    """A history whose cluster is lost; what was its data directory when it was stopped is still there."""

    history: History
    moment: Moment
    end: Moment
    old: Path
    backups: dict[str, str]
    refusal_while_it_ran: str

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a machine that restores."""
        return {**self.history.environment, "PGBINDIR": str(self.history.install.bin_folder)}

    def prepare(self, pgdata: Path, method: str = "local", **options: object) -> PreparedRestore:
        """Plan a restore from the base backup of a method."""
        return prepared(self.environment, pgdata, base_backup=self.backups[method], **options)

    def old_cluster(self, folder: Path) -> Path:
        """Return a copy of the old data directory, with its tablespace beside it."""
        pgdata = shutil.copytree(self.old, folder / "pgdata", symlinks=True)
        [link] = (pgdata / "pg_tblspc").iterdir()
        space = shutil.copytree(link.readlink(), folder / "pgdata-spaces" / link.name)
        link.unlink()
        link.symlink_to(space)
        return pgdata


@pytest.fixture(scope="module")
def lost(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Lost]:
    """A cluster with a tablespace, a base backup of each method, and commits after them."""
    with History.begin(postgres_version, s3_pair) as history:
        history.cluster.make_tablespace("space")
        history.cluster.psql(
            "CREATE TABLE still TABLESPACE space AS SELECT n, md5(n::text) FROM generate_series(1, 60000) n; CHECKPOINT"
        )
        backups = {"remote": history.back_up(), "local": history.back_up_locally()}
        history.cluster.psql("CREATE TABLE new AS SELECT generate_series(1, 50) n")
        backups["incremental"] = history.back_up(incremental=True)
        history.mark("first")
        history.mark("second")
        moment, end = history.moment("first"), history.end()
        environment = {**history.environment, "PGBINDIR": str(history.install.bin_folder)}
        with pytest.raises(RestoreError) as caught:
            prepared(environment, history.cluster.pgdata, delta=True)
        history.cluster.stop()
        old = owned_folder("old") / "pgdata"
        shutil.copytree(history.cluster.pgdata, old, symlinks=True)
        yield Lost(history, moment, end, old, backups, caught.value.message)
        shutil.rmtree(old.parent)


@pytest.fixture(scope="module")
def whole(lost: Lost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RestoreResult, "Contents"]]:
    """What a restore into an empty folder brings, by the base backup's method."""
    found = {}
    for method in lost.backups:
        pgdata = tmp_path_factory.mktemp("whole") / "pgdata"
        found[method] = (perform(lost.prepare(pgdata, method)), contents(pgdata))
    return found


Contents = dict[str, tuple[int, bytes | None]]


def perform(restore: PreparedRestore) -> RestoreResult:
    """Bring the files back."""
    return perform_restore(restore, RestoreCommand(("false",)))


def contents(pgdata: Path) -> Contents:
    """All that a restore brings: modes and bytes, the tablespaces' too."""
    found: Contents = {}
    for root, folders, files in os.walk(pgdata, followlinks=True):
        folders[:] = [name for name in folders if name not in NOT_RESTORED]
        for name in (*folders, *files):
            path = Path(root, name)
            if name not in NOT_RESTORED:
                data = path.read_bytes().partition(b"\n# wal-pipeline restore")[0] if path.is_file() else None
                found[str(path.relative_to(pgdata))] = (path.stat().st_mode, data)
    return found


@pytest.mark.parametrize(
    ("method", "name", "words"),
    [
        ("local", "first", ["--verify-with=postgres"]),
        ("local", "end", ["--store=b2", "--workers=1", "--no-verify"]),
        ("incremental", "first", []),
    ],
)
def test_it_is_restored_to_a_moment_and_to_the_end(lost: Lost, method: str, name: str, words: list[str]) -> None:
    """With exactly the commits up to then."""
    moment = {"first": lost.moment, "end": lost.end}[name]
    target = [f"--to-time={moment.at}"] if moment.at else []
    [space] = (lost.old / "pg_tblspc").iterdir()
    mapped = f"--tablespace-map={space.name}={owned_folder('mapped') / 'space'}"
    chosen = f"--base-backup={lost.backups[method]}"
    with restored(lost.history, "--no-archiving", chosen, mapped, *target, *words) as at:
        assert at.moment() == (moment.marks, moment.transactions)
        assert at.balances_agree()
        assert at.cluster.value("SELECT sum(n) FROM still") == str(60000 * 60001 // 2)


def test_both_methods_bring_the_same_files(whole: dict[str, tuple[RestoreResult, Contents]]) -> None:
    """But for what the server changed between the two base backups."""
    local, remote = whole["local"][1], whole["remote"][1]
    assert local.keys() == remote.keys()
    assert {name: mode for name, (mode, _) in local.items()} == {name: mode for name, (mode, _) in remote.items()}
    same = sum(local[name] == remote[name] for name in local)
    assert same > len(local) * 0.9


@pytest.mark.parametrize(
    ("method", "verify_with"),
    [
        ("local", VerifyWith.OWN),
        ("local", VerifyWith.POSTGRES),
        ("remote", VerifyWith.OWN),
        ("incremental", VerifyWith.OWN),
    ],
)
def test_what_is_right_in_an_old_cluster_stays(
    lost: Lost,
    whole: dict[str, tuple[RestoreResult, Contents]],
    tmp_path: Path,
    method: str,
    verify_with: VerifyWith,
) -> None:
    """The result is that of a restore into an empty folder. No --force is needed: it is this cluster's."""
    pgdata = lost.old_cluster(tmp_path)
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder/file").write_bytes(b"kept")
    (pgdata / "stray").symlink_to(outside / "folder")
    (pgdata / "base/1/99999").write_bytes(b"surplus")
    (pgdata / "base/99999").mkdir()
    (pgdata / "base/99999/1").write_bytes(b"surplus")
    (pgdata / "standby.signal").touch()
    os.link(pgdata / "PG_VERSION", outside / "linked")
    large = max((pgdata / "base").rglob("*"), key=lambda path: path.stat().st_size)
    large.write_bytes(large.read_bytes()[:-8192])
    result = perform(lost.prepare(pgdata, method, delta=True, verify_with=verify_with))
    fresh, expected = whole[method]
    assert contents(pgdata) == expected
    assert (outside / "folder/file").read_bytes() == b"kept"
    assert (outside / "linked").stat().st_nlink == 1
    assert not (pgdata / "standby.signal").exists()
    assert result.kept_bytes > sum(len(data or b"") for _, data in expected.values()) * 0.5
    assert result.downloaded_bytes < fresh.downloaded_bytes * (1.01 if method == "remote" else 0.6)


def test_a_running_cluster_is_refused(lost: Lost) -> None:
    """Its files are in use, however right they are."""
    assert "runs in" in lost.refusal_while_it_ran


@pytest.mark.parametrize("force", [True, False])
def test_another_clusters_folder_is_refused(lost: Lost, tmp_path: Path, force: bool) -> None:
    """Nothing of it is surplus, because nothing of it is ours."""
    pgdata = lost.old_cluster(tmp_path)
    control = pgdata / "global/pg_control"
    [identifier] = struct.unpack_from("<Q", control.read_bytes())
    control.write_bytes(struct.pack("<Q", identifier + 1) + control.read_bytes()[8:])
    before = contents(pgdata)
    with pytest.raises(RestoreError) as caught:
        lost.prepare(pgdata, delta=True, force=force)
    assert caught.value.message == (
        f"the data directory '{pgdata}' is of the cluster with the system identifier {identifier + 1}, "
        f"expected {identifier}"
    )
    assert contents(pgdata) == before


def test_a_folder_whose_pg_control_is_lost_needs_force(
    lost: Lost, whole: dict[str, tuple[RestoreResult, Contents]], tmp_path: Path
) -> None:
    """Nothing proves whose it is; what is right in it stays all the same."""
    pgdata = lost.old_cluster(tmp_path)
    (pgdata / "global/pg_control").write_bytes(bytes(8192))
    with pytest.raises(RestoreError, match="nothing proves whose it is"):
        lost.prepare(pgdata, delta=True)
    result = perform(lost.prepare(pgdata, delta=True, force=True))
    assert contents(pgdata) == whole["local"][1]
    assert result.kept_bytes


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("method", ["local", "remote"])
def test_a_killed_restore_goes_on_where_it_was(
    lost: Lost, whole: dict[str, tuple[RestoreResult, Contents]], tmp_path: Path, method: str, share: float
) -> None:
    """By the same command. Nothing can be started meanwhile."""
    pgdata = tmp_path / "pgdata"
    kill_restore(lost.environment, pgdata, lost.backups[method], share=share)
    assert not (pgdata / "global/pg_control").exists()
    again = lost.prepare(pgdata, method)
    assert again.keeps or share < 0.5  # nothing may have been written yet
    result = perform(again)
    fresh, expected = whole[method]
    assert contents(pgdata) == expected
    if method == "local" and share > 0.5:
        assert result.downloaded_bytes < fresh.downloaded_bytes * 0.6
        assert result.kept_bytes


@pytest.mark.parametrize("phase", ["verify", "finish"])
def test_nothing_starts_before_all_is_proven_and_set(
    lost: Lost, whole: dict[str, tuple[RestoreResult, Contents]], tmp_path: Path, phase: str
) -> None:
    """A restore that is killed late has all files and no control file: without its settings it would go elsewhere."""
    pgdata = tmp_path / "pgdata"
    kill_restore(lost.environment, pgdata, lost.backups["local"], phase=phase)
    assert not (pgdata / "global/pg_control").exists()
    result = perform(lost.prepare(pgdata))
    assert (pgdata / "global/pg_control").exists()
    assert result.downloaded_bytes < whole["local"][0].downloaded_bytes * 0.6
