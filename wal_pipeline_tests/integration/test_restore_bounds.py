"""Tests that a recovery ends where its plan says, whatever is archived later and whatever the old settings are."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testbed.postgres import PostgresCluster, start_restored
from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from wal_pipeline_tests.support.restore_history import History, restored, run_restore, wait_until

pytestmark = pytest.mark.integration
_LEFT_OVER = """
recovery_target_time = '2001-01-01 00:00:00+00'
recovery_target_action = 'shutdown'
recovery_target_inclusive = off
recovery_end_command = 'touch ended'
archive_cleanup_command = 'touch cleaned'
"""


@pytest.fixture(scope="module")
def history(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[History]:
    """A cluster that lives on, a base backup with the settings of an old recovery, and two marks after it."""
    with History.begin(postgres_version, s3_pair) as made:
        with (made.cluster.pgdata / "postgresql.conf").open("a") as conf:
            conf.write(_LEFT_OVER)
        made.back_up()
        made.mark("first")
        made.cluster.psql("SELECT pg_create_restore_point('here')")
        made.mark("second")
        made.end()
        yield made


@contextmanager
def started_later(history: History, *arguments: str) -> Iterator[PostgresCluster]:
    """Restore, let the old cluster commit and archive more, and start the restored server after that."""
    pgdata = owned_folder("restored") / "pgdata"
    done = run_restore(history, "--pgdata", str(pgdata), "--no-archiving", *arguments)
    assert done.returncode == 0, done.stderr
    history.mark("later")
    history.end()
    cluster = start_restored(history.install, pgdata, settings={}, env=history.environment)
    try:
        cluster.wait_promoted()
        yield cluster
    finally:
        cluster.remove()


def marks(cluster: PostgresCluster) -> int:
    """Return the number of marks."""
    return int(cluster.value("SELECT count(*) FROM marks"))


def test_the_last_commit_is_the_end_also_where_the_archive_grows(history: History) -> None:
    """Files that are archived between the plan and the replay are after the target."""
    plan = json.loads(run_restore(history, "--pgdata=/nowhere/pgdata", "--plan", "--json").stdout)
    before = marks(history.cluster)
    with started_later(history, f"--to-time={plan['commit_at_most']}") as later:
        assert marks(later) == before


def test_the_end_is_the_end_of_what_is_archived_by_then(history: History) -> None:
    """A restore to the end replays all WAL that is archived when the server asks for it."""
    with started_later(history) as later:
        assert marks(later) == marks(history.cluster)


def test_settings_left_from_an_old_recovery_do_not_end_this_one(history: History) -> None:
    """The base backup's postgresql.conf has another target, another action and commands of its own."""
    with started_later(history, "--to-name=here") as later:
        assert marks(later) == 1
        assert not (later.pgdata / "ended").exists()
        assert not (later.pgdata / "cleaned").exists()


def test_a_rollback_after_the_last_commit_is_no_other_end(history: History) -> None:
    """PostgreSQL reports a rollback as the last completed transaction, and the WAL shows that it is one."""
    segment = history.cluster.psql(
        "BEGIN;\nINSERT INTO marks VALUES (-1);\nROLLBACK;\n"
        "SELECT pg_walfile_name(pg_current_wal_insert_lsn());\nSELECT pg_switch_wal() \\gset\n"
    )
    wait_until((history.folder / "spool" / segment).exists)
    history.archive()
    with restored(history) as found:
        assert found.moment()[0] == marks(history.cluster)
        assert found.answer["recovery"]["last_commit_at"] > found.answer["commit_at_most"]


def test_a_recovery_that_ends_elsewhere_fails(history: History) -> None:
    """Without the last segment PostgreSQL opens too early; the command and its exit code say so."""
    history.mark("in the last segment")
    history.end()
    plan = json.loads(run_restore(history, "--pgdata=/nowhere/pgdata", "--plan", "--json").stdout)
    fetch = f'{sys.executable} -P -m wal_pipeline.cli.archive_get --no-prefetch "%f" "%p"'
    early = f"--set=restore_command=[ %f = {plan['wal']['last']} ] && exit 1; {fetch}"
    wrong = "did not end where it was planned to: the last commit replayed is"
    with pytest.raises(AssertionError, match=wrong) as failed, restored(history, early):
        pass
    assert "HINT: Do not let anyone use this server, which is open" in str(failed.value)


@pytest.mark.parametrize(
    ("side", "action"),
    [
        ("--inclusive", "promote"),
        ("--exclusive", "pause"),
        pytest.param("--exclusive", "promote", marks=pytest.mark.left_out),
        pytest.param("--inclusive", "pause", marks=pytest.mark.left_out),
    ],
)
def test_an_lsn_and_an_immediate_end_are_within_their_plans(history: History, side: str, action: str) -> None:
    """Both ends count as reached, although the server reports other positions on each side and while paused."""
    lsn = history.cluster.value("SELECT pg_current_wal_lsn()")
    history.mark("behind the LSN")
    history.end()
    for target in ([f"--to-lsn={lsn}"], ["--immediate"]):
        with restored(history, *target, side, f"--action={action}") as found:
            assert found.answer["recovery"]["replayed_lsn"] is not None
