"""Tests that an archiving run tells its own cluster's files from those of other clusters."""

import os
import time

import pytest

from wal_pipeline.commands.archive_push.events import (
    FileQuarantined,
    FileReleased,
    FileSkipped,
    FilesWaiting,
    QuarantineReason,
)
from wal_pipeline_tests.support.archive_scene import ArchiveScene, assert_archived, names, one
from wal_pipeline_tests.support.segments import (
    OTHER_SYSTEM_IDENTIFIER,
    SYSTEM_IDENTIFIER,
    history_bytes,
    name_of,
    spool_segments,
)


def test_another_clusters_file(scene: ArchiveScene) -> None:
    """A segment of another cluster is quarantined at once, however young, and nothing of it is uploaded."""
    made = spool_segments(scene.spool_folder, [1, 3])
    other = spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    event = one(scene.run(), FileQuarantined)
    assert event.reason is QuarantineReason.WRONG_CLUSTER
    assert event.message == (
        f"'{name_of(2)}' is of the cluster with system identifier {OTHER_SYSTEM_IDENTIFIER}, "
        f"expected {SYSTEM_IDENTIFIER}"
    )
    assert event.path.read_bytes() == other[name_of(2)]
    assert_archived(scene, made)


def test_another_clusters_file_while_the_server_is_down(scene: ArchiveScene) -> None:
    """The file may belong to the upgraded cluster: it stays and is reported, and archived once the server answers."""
    made = spool_segments(scene.spool_folder, [1])
    scene.run()
    scene.server_identifier = None
    made |= spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    left = one(scene.run(), FileSkipped)
    assert left.needs_help
    assert left.message == (
        f"'{name_of(2)}' is of the cluster with system identifier {OTHER_SYSTEM_IDENTIFIER}, "
        f"expected {SYSTEM_IDENTIFIER}; the server does not answer, and may have a new one"
    )
    assert (scene.spooled(), scene.quarantined()) == ([name_of(2)], [])
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    scene.run()
    assert_archived(scene, made)


def test_an_upgraded_cluster_goes_on_under_its_name(scene: ArchiveScene) -> None:
    """The server's new system identifier is accepted in the middle of a run, and so is WAL of the old one."""
    made = spool_segments(scene.spool_folder, [1])
    draining = scene.archiver().drain()
    assert isinstance(next(draining), FilesWaiting)
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    made |= spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    events = [*draining, *scene.run()]
    assert names(events, FileQuarantined) == []
    assert_archived(scene, made)


def test_a_new_cluster_may_use_the_old_ones_names(scene: ArchiveScene) -> None:
    """A cluster made again under the same name archives beside the old one, though the names are recorded already."""
    spool_segments(scene.spool_folder, [1, 2])
    scene.run()
    scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    new = spool_segments(scene.spool_folder, [1, 2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    assert sorted(names(scene.run(), FileReleased)) == sorted(new)
    assert scene.spooled() == []
    assert len(scene.stores["r2"].created) == len(scene.stores["b2"].created) == 4
    assert {identifier for identifier, _ in scene.catalog.files.names_on("b2")} == {
        SYSTEM_IDENTIFIER,
        OTHER_SYSTEM_IDENTIFIER,
    }


@pytest.mark.parametrize("server", [OTHER_SYSTEM_IDENTIFIER, None])
def test_a_stale_setting_quarantines_nothing(scene: ArchiveScene, server: int | None) -> None:
    """After pg_upgrade, with the old identifier in the settings, all new WAL went to quarantine at once."""
    made = spool_segments(scene.spool_folder, [1])
    scene.fixed_identifier, scene.server_identifier = SYSTEM_IDENTIFIER, server
    scene.run()
    new = spool_segments(scene.spool_folder, [2, 3], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    events = scene.run()
    assert names(events, FileQuarantined) == []
    assert scene.spooled() == sorted(new)
    left = sorted((event for event in events if isinstance(event, FileSkipped)), key=lambda event: event.name)
    assert [event.needs_help for event in left] == [True, True]
    says = {
        None: "the server does not answer, and may have a new one",
        OTHER_SYSTEM_IDENTIFIER: (
            f"WAL_PIPELINE_SYSTEM_IDENTIFIER is {SYSTEM_IDENTIFIER}, the server has {OTHER_SYSTEM_IDENTIFIER}: "
            "remove the setting, or set it to the server's"
        ),
    }
    assert left[0].message == (
        f"'{name_of(2)}' is of the cluster with system identifier {OTHER_SYSTEM_IDENTIFIER}, "
        f"expected {SYSTEM_IDENTIFIER}; {says[server]}"
    )
    scene.fixed_identifier = scene.server_identifier = OTHER_SYSTEM_IDENTIFIER
    scene.settle()
    scene.run()
    assert_archived(scene, made | new)


def test_a_stale_setting_gives_no_unnamed_file_to_the_old_cluster(scene: ArchiveScene) -> None:
    """A .history file names no cluster: where the server contradicts the setting, it waits."""
    scene.fixed_identifier, scene.server_identifier = SYSTEM_IDENTIFIER, OTHER_SYSTEM_IDENTIFIER
    (scene.spool_folder / "00000002.history").write_bytes(history_bytes([1]))
    scene.settle()
    left = one(scene.run(), FileSkipped)
    assert left.message.startswith("'00000002.history' does not name its cluster; WAL_PIPELINE_SYSTEM_IDENTIFIER is ")
    assert (scene.spooled(), scene.quarantined()) == (["00000002.history"], [])
    scene.fixed_identifier = None
    scene.settle()
    scene.run()
    assert {identifier for identifier, _ in scene.catalog.files.names_on("b2")} == {OTHER_SYSTEM_IDENTIFIER}


def test_a_setting_that_the_server_confirms_quarantines_others(scene: ArchiveScene) -> None:
    """Where the server and the setting agree, another cluster's file is moved away as ever."""
    scene.fixed_identifier = scene.server_identifier = SYSTEM_IDENTIFIER
    spool_segments(scene.spool_folder, [2], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    assert one(scene.run(), FileQuarantined).reason is QuarantineReason.WRONG_CLUSTER


def test_a_silent_server_is_not_asked_for_each_file(scene: ArchiveScene) -> None:
    """Each question to a host that does not answer takes ten seconds: many files share one."""
    spool_segments(scene.spool_folder, [1])
    scene.run()
    scene.server_identifier, scene.asked = None, 0
    spool_segments(scene.spool_folder, range(2, 12), system_identifier=OTHER_SYSTEM_IDENTIFIER)
    assert len([event for event in scene.run() if isinstance(event, FileSkipped)]) == 10
    assert scene.asked == 2


def test_the_first_segment_tells_the_cluster(scene: ArchiveScene) -> None:
    """Without a server, files that do not name their cluster wait for the first whole segment."""
    scene.server_identifier = None
    (scene.spool_folder / "00000002.history").write_bytes(history_bytes([1]))
    left = one(scene.run(), FileSkipped)
    assert left.message == "which cluster it belongs to is not known before the first segment"
    made = spool_segments(scene.spool_folder, [1]) | {"00000002.history": history_bytes([1])}
    scene.run()
    assert_archived(scene, made)
    assert scene.catalog.system_identifiers.known() == [SYSTEM_IDENTIFIER]


def test_a_history_file_left_over_an_upgrade_is_not_the_new_clusters(scene: ArchiveScene) -> None:
    """It goes to the old cluster's part of the stores where that is known, else to quarantine with an alert."""
    born = int(time.time()) - 3600
    newer = born << 32
    history = scene.spool_folder / "00000002.history"
    scene.server_identifier = newer
    made = spool_segments(scene.spool_folder, [1], system_identifier=newer)
    history.write_bytes(history_bytes([1]))
    os.utime(history, (born - 7200, born - 7200))
    event = one(scene.run(), FileQuarantined)
    assert event.reason is QuarantineReason.WRONG_CLUSTER
    assert "another cluster left it in the spool, as before pg_upgrade" in event.message
    assert_archived(scene, made)


def test_a_history_file_left_over_an_upgrade_is_archived_for_the_old_cluster(scene: ArchiveScene) -> None:
    """So that a restore of the old cluster has it, and the new one's archive names no timeline that it never had."""
    spool_segments(scene.spool_folder, [1])
    scene.run()
    born = int(time.time()) - 3600
    scene.server_identifier = newer = born << 32
    history = scene.spool_folder / "00000002.history"
    history.write_bytes(history_bytes([1]))
    os.utime(history, (born - 7200, born - 7200))
    spool_segments(scene.spool_folder, [2], system_identifier=newer)
    scene.run()
    assert (scene.spooled(), scene.quarantined()) == ([], [])
    on_r2 = scene.catalog.files.names_on("r2")
    assert (SYSTEM_IDENTIFIER, "00000002.history") in on_r2
    assert (newer, "00000002.history") not in on_r2
