"""Whether a file that cannot be archived could be moved to quarantine."""

from pathlib import Path

from wal_pipeline.commands.setup.findings import Level
from wal_pipeline.commands.setup.quarantine import judge_quarantine
from wal_pipeline_tests.support.mounts import mounted
from wal_pipeline_tests.support.nobody import as_nobody, nobodys_folder


def told_by(folder: Path) -> str:
    """Return the judgement of another user than root."""

    def look() -> None:
        found = judge_quarantine(folder)
        raise RuntimeError(f"{found.status} {found.message} | {' '.join(found.lines)}")

    return as_nobody(look)


def test_a_quarantine_that_cannot_be_made_is_seen_before_it_is_needed() -> None:
    """The spool lies below a folder of root's: the way out is a folder made by root, or the setting."""
    with nobodys_folder("wal-spool") as spool:
        folder = spool.with_name("wal-spool-quarantine")
        told = told_by(folder)
        assert told.startswith(f"problem user 'nobody' cannot make '{folder}' in '{spool.parent}': a file that cannot")
        assert f"sudo install -d -o nobody -m 0700 {folder}" in told
        assert "set WAL_PIPELINE_QUARANTINE_FOLDER to a folder in which user 'nobody' can write" in told
        folder.mkdir(mode=0o755)
        assert told_by(folder).startswith(f"problem user 'nobody' cannot write in '{folder}'")
        assert told_by(spool / "quarantine").startswith(f"ok '{spool}/quarantine' can be made")
        assert told_by(spool).startswith(f"ok '{spool}' is there")


def test_a_quarantine_beside_a_mount_point_is_seen(tmp_path: Path) -> None:
    """A spool that is a mount point has root's folder beside it."""
    parent = Path("/tmp/wal-pipeline-spool-parent")  # noqa: S108 - the other user must reach it
    with mounted(parent / "spool", 1):
        assert told_by(parent / "spool-quarantine").startswith("problem user 'nobody' cannot make")
    parent.rmdir()


def test_a_file_in_its_place_is_seen(tmp_path: Path) -> None:
    """Also where we may do anything."""
    (tmp_path / "quarantine").touch()
    found = judge_quarantine(tmp_path / "quarantine")
    assert (found.status, found.message) == (Level.PROBLEM, f"'{tmp_path / 'quarantine'}' is not a folder")
