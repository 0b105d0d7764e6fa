"""Tests that a lost cluster is restored to the target from each store alone, with exactly its commits."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testbed.postgres_install import PostgresInstall, owned_folder
from testbed.s3_pair import S3Pair
from wal_pipeline.archive.restore_time.measure import MeasuredBy
from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.commands.restore_times import read_times
from wal_pipeline.wiring.pipeline import utc_now
from wal_pipeline_tests.support.restore_history import History, Moment, restored, run_restore

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Lost:
    """A history whose cluster is lost, and its moments by name."""

    history: History
    moments: dict[str, Moment]


@pytest.fixture(scope="module")
def lost(postgres_version: PostgresInstall, s3_pair: S3Pair) -> Iterator[Lost]:
    """A cluster under pgbench load with a base backup, three noted moments after it, and its end."""
    with History.begin(postgres_version, s3_pair) as history:
        history.back_up()
        for name in ("first", "second", "third"):
            history.mark(name)
        moments = {name: history.moment(name) for name in history.moments}
        moments["end"] = history.end()
        history.lose()
        yield Lost(history, moments)


@pytest.mark.parametrize("store", ["r2", "b2"])
@pytest.mark.parametrize("name", ["first", "second", "third", "end"])
def test_restore_to_a_moment_from_one_store(lost: Lost, store: str, name: str) -> None:
    """Exactly the commits up to the target are there, and pgbench's sums agree."""
    moment = lost.moments[name]
    target = [f"--to-time={moment.at}"] if moment.at else []
    with restored(lost.history, f"--store={store}", *target) as found:
        assert found.moment() == (moment.marks, moment.transactions)
        assert found.balances_agree()
        recovery = found.answer["recovery"]
        assert (recovery["state"], recovery["timeline"]) == ("open", 2)
        assert found.answer["commit_at_least"] <= recovery["last_commit_at"] <= found.answer["commit_at_most"]


@pytest.mark.newest_version
def test_a_restore_learns_how_long_it_takes(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is predicted by the first, and compared. A host without a catalog says so, and gets none."""
    folder = owned_folder("learns")
    url = f"sqlite:///{folder}/catalog.sqlite"
    monkeypatch.setitem(lost.history.environment, "WAL_PIPELINE_CATALOG_URL", url)
    plan = run_restore(lost.history, "--pgdata=/nowhere/pgdata", "--plan", "--json", "--store=r2")
    assert json.loads(plan.stdout)["forecast"]["not_known"] == (
        f"the records of earlier restores cannot be read: this host has no catalog: '{folder}/catalog.sqlite' does "
        "not exist"
    )
    assert list(folder.iterdir()) == []
    catalog = open_catalog(url, "main", clock=utc_now)
    for file in folder.iterdir():
        os.chown(file, folder.stat().st_uid, folder.stat().st_gid)
    with restored(lost.history, "--store=r2") as first:
        assert (first.answer["forecast"]["seconds"], first.answer["predicted_seconds"]) == (None, None)
        assert first.answer["took_seconds"] > 0
    [measured] = read_times(catalog).measured
    assert (measured.work.stores, measured.by) == (("r2",), MeasuredBy.RESTORE)
    assert {phase.value for phase in measured.seconds} >= {"download", "verify", "start", "replay", "open"}
    with restored(lost.history, "--store=r2") as second:
        forecast = second.answer["forecast"]
        assert (forecast["is_guess"], forecast["is_at_least"], forecast["measured"]) == (False, False, 1)
        assert second.answer["predicted_seconds"] == pytest.approx(forecast["seconds"], abs=0.01)
    catalog.close()


def test_the_plan_refuses_the_future(lost: Lost) -> None:
    """A time later than the last commit is refused with the nearest moment, before anything is written."""
    done = run_restore(lost.history, "--pgdata=/nowhere/pgdata", "--to-time=2099-01-01 00:00:00+00", "--plan")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "ERROR: time 2099-01-01 00:00:00+00:00 is later than the last commit that is archived on timeline 1\n"
        "HINT: The nearest that can be reached: "
    )
