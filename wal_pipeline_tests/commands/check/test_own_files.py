"""What a check says of our own files, and of what lies in the spool besides."""

import os

import pytest

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.archive_push.alerts import ArchiveAlerts
from wal_pipeline.commands.archive_push.events import FileQuarantined
from wal_pipeline.commands.archive_push.pending import pending_work
from wal_pipeline.commands.check.own_files import check_catalog, check_lock, check_other_names
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.archive_scene import ArchiveScene, contents
from wal_pipeline_tests.support.segments import name_of, segment_bytes, spool_segments


def test_the_lock(scene: ArchiveScene) -> None:
    """It can be taken, or a run holds it; where it cannot be opened the item fails."""
    assert (check_lock(scene.spool).ok, check_lock(scene.spool).message) == (True, "it can be taken")
    with scene.open_spool().lock():
        assert (check_lock(scene.spool).ok, check_lock(scene.spool).message) == (True, "an archiving run holds it")
    scene.spool_folder.joinpath(".wal-pipeline.lock").unlink()
    scene.spool_folder.joinpath(".wal-pipeline.lock").symlink_to("/nowhere")
    assert not check_lock(scene.spool).ok


def test_names_that_are_never_archived(scene: ArchiveScene) -> None:
    """What is no WAL file by its name is told; what is meant as one fails the item, and is told in each tick too."""

    def look() -> tuple[bool, str]:
        item = check_other_names(lambda: scene.spool.scan(scene.clock()))
        return item.ok, item.message

    assert look() == (True, "none")
    (scene.spool_folder / "lost+found").mkdir()
    assert look() == (True, "1 are left alone: 'lost+found'")
    (scene.spool_folder / f"{name_of(3)}.gz").write_bytes(b"x")
    (scene.spool_folder / name_of(1)).symlink_to("/etc/hosts")
    assert look() == (
        False,
        f"3 names in the spool are never archived: '{name_of(1)}', '{name_of(3)}.gz', 'lost+found'",
    )
    work = pending_work(scene.spool, scene.catalog, scene.stores, scene.clock())
    assert work.describe() == f"the spool is empty, 3 other names are left alone, the first '{name_of(1)}'"
    spool_segments(scene.spool_folder, [9])
    work = pending_work(scene.spool, scene.catalog, scene.stores, scene.clock())
    assert work.describe().endswith(f"3 other names are left alone, the first '{name_of(1)}'")


def test_a_catalog_that_cannot_be_opened(scene: ArchiveScene) -> None:
    """Its error is the item's, and the quarantine is not looked at."""

    def broken() -> Catalog:
        raise CatalogError("catalog 'x' failed", hint="Mend it.")

    [item] = check_catalog(broken, scene.spool)
    assert (item.name, item.ok, item.message, item.hint) == ("catalog", False, "catalog 'x' failed", "Mend it.")


def test_a_half_that_became_whole_in_quarantine(scene: ArchiveScene) -> None:
    """Where its copy went on in quarantine, the item says so, with the line that brings it back."""
    data = segment_bytes(1)
    path = scene.spool_folder / name_of(1)
    path.write_bytes(data[:5000])
    assert scene.run() == []
    scene.settle()
    alerts = ArchiveAlerts(scene.catalog, scene.clock)
    [moved] = [event for event in scene.run() if isinstance(event, FileQuarantined)]
    alerts.note(moved)
    written, quarantine = check_catalog(lambda: scene.catalog, scene.spool)
    assert (written.ok, written.message) == (True, "it can be read and written")
    assert (quarantine.ok, quarantine.message) == (True, "no file in quarantine has become whole")
    with moved.path.open("ab") as file:
        file.write(data[5000:])
    _, quarantine = check_catalog(lambda: scene.catalog, scene.spool)
    assert quarantine.message == (
        f"1 files were moved to quarantine as halves and are whole now, the first '{moved.path.name}'"
    )
    line = f"mv -n {moved.path} {path}"
    assert (quarantine.ok, quarantine.hint) == (False, f"Their copy went on after that. Type: {line}")
    assert os.waitstatus_to_exitcode(os.system(line)) == 0  # noqa: S605
    scene.run()
    assert contents(scene.stores["r2"]) == {name_of(1): data}


@pytest.mark.parametrize("content", [segment_bytes(1, variant=1), b"half"])
def test_what_is_rightly_in_quarantine_is_not_told(scene: ArchiveScene, content: bytes) -> None:
    """Other content is whole, and was never a half; a half that stayed one is no news."""
    spool_segments(scene.spool_folder, [1])
    scene.run()
    (scene.spool_folder / name_of(1)).write_bytes(content)
    scene.run()
    scene.settle()
    alerts = ArchiveAlerts(scene.catalog, scene.clock)
    for event in scene.run():
        alerts.note(event)
    assert scene.quarantined()
    assert check_catalog(lambda: scene.catalog, scene.spool)[1].ok
