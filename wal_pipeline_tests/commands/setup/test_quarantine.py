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
        assert told == (
            f"problem '{folder}' cannot be made in '{spool.parent}': Permission denied; a file that cannot be archived "
            "would stay in the spool, in every run | Set WAL_PIPELINE_QUARANTINE_FOLDER to a folder that user 'nobody' "
            f"may write, or make this one so: sudo install -d -o nobody -m 0700 {folder}"
        )
        folder.mkdir(mode=0o755)
        assert told_by(folder).startswith(f"problem '{folder}' cannot be written: Permission denied; a file")
        assert told_by(spool / "quarantine").startswith(f"ok '{spool}/quarantine' can be made when it is needed")
        assert told_by(spool).startswith(f"ok '{spool}' can be written")


def test_a_quarantine_beside_a_mount_point_is_seen(tmp_path: Path) -> None:
    """A spool that is a mount point has root's folder beside it."""
    parent = Path("/tmp/wal-pipeline-spool-parent")  # noqa: S108 - the other user must reach it
    with mounted(parent / "spool", 1):
        assert told_by(parent / "spool-quarantine").startswith(
            f"problem '{parent}/spool-quarantine' cannot be made in '{parent}': Permission denied"
        )
    parent.rmdir()


def test_a_file_in_its_place_is_seen(tmp_path: Path) -> None:
    """Also where we may do anything."""
    (tmp_path / "quarantine").touch()
    found = judge_quarantine(tmp_path / "quarantine")
    assert found.status is Level.PROBLEM
    assert found.message.startswith(f"'{tmp_path / 'quarantine'}' cannot be written: Not a directory; ")
