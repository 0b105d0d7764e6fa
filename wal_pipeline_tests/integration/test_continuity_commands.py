"""Runs the commands as a person does, where two servers archive side by side or a segment size was changed.

``test_continuity`` shows both on each version of PostgreSQL; here each has one, as the commands' words are ours.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testbed.postgres_install import PostgresInstall
from wal_pipeline_tests.support.beside_scene import Beside, Started, beside
from wal_pipeline_tests.support.restore_history import wait_until

pytestmark = pytest.mark.integration


@contextmanager
def original(install: PostgresInstall) -> Iterator[Beside]:
    """Make an original with a base backup and one archived row."""
    with beside(install) as made:
        made.back_up()
        made.cluster.psql("INSERT INTO t VALUES ('P')")
        made.archive()
        yield made


@pytest.fixture
def scene(postgres_version: PostgresInstall) -> Iterator[Beside]:
    """An original of each version."""
    with original(postgres_version) as made:
        yield made


@pytest.fixture
def scene18(postgres18: PostgresInstall) -> Iterator[Beside]:
    """An original of PostgreSQL 18."""
    with original(postgres18) as made:
        yield made


@pytest.fixture
def scene15(postgres15: PostgresInstall) -> Iterator[Beside]:
    """An original of PostgreSQL 15."""
    with original(postgres15) as made:
        yield made


def write(server: Started, label: str, times: int) -> None:
    """Commit a row and finish the segment, ``times`` times, on a restored server that archives into the spool."""
    name = ""
    for _ in range(times):
        server.value(f"INSERT INTO t VALUES ('{label}')")  # noqa: S608
        name = server.value("SELECT pg_walfile_name(pg_switch_wal())")
    wait_until((server.scene.folder / "spool" / name).exists)


def stored(scene: Beside) -> set[str]:
    """Return the names of the WAL files on the store."""
    return {path.name for path in (scene.folder / "store" / "objects").rglob("wal/**/*") if path.is_file()}


def rows(server: Started) -> str:
    """Return the labels in a restored server's table."""
    return server.value("SELECT string_agg(n, ',' ORDER BY n) FROM t")


def test_no_restore_follows_a_copy_that_archives_without_a_word(scene18: Beside) -> None:
    """Every screen names both ends, the restore asks which is wanted, and brings the commits of that one alone."""
    with scene18.started("copy", "--archiving") as copy:
        assert copy.done.returncode == 0, copy.done.stderr
        write(copy, "copy", 3)
        for _ in range(2):
            scene18.cluster.psql("INSERT INTO t VALUES ('P2')")
            scene18.archive()
    scene18.must("archive")

    assert "timeline 1 goes on until" in scene18.must("status")
    status = json.loads(scene18.must("status", "--json"))
    assert [(one["timeline"], one["beside"], one["live"]) for one in status["branches"]] == [(1, 2, True)]
    (problem,) = [one for one in status["problems"] if one["kind"] == "older_timeline"]
    assert problem["severity"] == "critical"
    assert "two servers archive side by side" in problem["message"]
    assert "timeline 1 goes on until" in scene18.must("verify")
    assert "timeline 1 goes on until" in scene18.must("gaps")

    planned = scene18.restore("restored", "--no-archiving", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "Timeline 1 goes on until" in planned.stdout
    assert "timeline 2 was chosen" in planned.stdout
    refused = scene18.restore("restored", "--no-archiving")
    assert refused.returncode != 0
    assert "two servers archive side by side, and which of them is wanted is not known" in refused.stderr
    assert "--timeline 1 or --timeline 2" in refused.stderr
    assert not (scene18.folder / "restored" / "PG_VERSION").exists()
    for timeline, expected in ((1, "P,P2,P2"), (2, "P,copy,copy,copy")):
        with scene18.started(f"on-{timeline}", "--no-archiving", f"--timeline={timeline}") as restored:
            assert restored.done.returncode == 0, restored.done.stderr
            assert rows(restored) == expected

    before = stored(scene18)
    (first,) = [name.partition(".")[0] for name in before if name.endswith(".backup.zst")]
    scene18.must("expire", "--confirm")
    assert {name for name in before - stored(scene18) if name >= first} == set()


def test_a_restore_that_replaces_the_original_is_archived_and_followed(scene: Beside) -> None:
    """It goes on from an older moment on a timeline of its own; nothing is held back, and nobody is asked."""
    at = scene.cluster.value("SELECT clock_timestamp()")
    for _ in range(2):
        scene.cluster.psql("INSERT INTO t VALUES ('wrong')")
        scene.archive()
    scene.cluster.stop()
    scene.must("archive")
    with scene.started("replacement", "--archiving", "--to-time", at) as replacement:
        assert replacement.done.returncode == 0, replacement.done.stderr
        write(replacement, "right", 3)
    scene.must("archive")
    assert sorted(path.name for path in (scene.folder / "spool").iterdir() if path.name[0] != ".") == []
    status = json.loads(scene.must("status", "--json", "--no-server"))
    assert status["branches"] == []
    assert [one["kind"] for one in status["problems"] if one["kind"] in ("older_timeline", "quarantine", "gap")] == []
    with scene.started("again", "--no-archiving") as restored:
        assert restored.done.returncode == 0, restored.done.stderr
        assert rows(restored) == "P,right,right,right"


@pytest.mark.postgres15
def test_no_command_takes_a_changed_segment_size_for_the_same_archive(scene15: Beside) -> None:
    """Set-up, base backup and archiving name the way out; nothing needed expires, and the old archive is restored."""
    at = scene15.cluster.value("SELECT clock_timestamp()")
    scene15.cluster.psql("INSERT INTO t VALUES ('late')")
    scene15.archive()
    scene15.cluster.stop()
    scene15.must("archive")
    scene15.cluster.run("pg_resetwal", "--wal-segsize=4", str(scene15.cluster.pgdata))
    scene15.cluster.settings |= {"min_wal_size": "16MB", "max_wal_size": "64MB"}
    scene15.cluster.start()
    scene15.cluster.psql("INSERT INTO t VALUES ('larger')")
    last = scene15.cluster.switch_wal()
    scene15.cluster.process.wait_until((scene15.folder / "spool" / last).exists)

    for words in (("setup",), ("backup",)):
        done = scene15.run(*words)
        assert done.returncode != 0
        assert "WAL_PIPELINE_CLUSTER" in done.stdout + done.stderr
    scene15.run("archive")
    assert (scene15.folder / "spool" / last).exists()
    alerts = scene15.run("alerts", "list").stdout
    assert last in alerts
    assert "WAL_PIPELINE_CLUSTER" in alerts
    before = stored(scene15)
    (first,) = [name.partition(".")[0] for name in before if name.endswith(".backup.zst")]
    scene15.run("expire", "--confirm")
    assert {name for name in before - stored(scene15) if name >= first} == set()
    with scene15.started("restored", "--no-archiving", "--to-time", at) as restored:
        assert restored.done.returncode == 0, restored.done.stderr
        assert rows(restored) == "P"
