"""Tests how long a restore is predicted to take, and from what."""

from datetime import UTC, datetime, timedelta

import pytest

from wal_pipeline.archive.restore_time.forecast import RateSource, predict_restore
from wal_pipeline.archive.restore_time.measure import MeasuredBy, MeasuredRestore, RestorePhase, RestoreWork

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
GIB = 1 << 30
WORK = RestoreWork(("r2", "b2"), 10 * GIB, 40 * GIB, 20 * GIB)


def measured(
    days_ago: int = 1,
    *,
    host: str = "db1",
    stores: tuple[str, ...] = ("r2",),
    scale: float = 1.0,
    seconds_a_gib: float = 10.0,
    combined_bytes: int = 0,
    **seconds: float,
) -> MeasuredRestore:
    """Return a drill of a cluster of 4 GiB; its times can be given."""
    work = RestoreWork(stores, int(scale * GIB), int(4 * scale * GIB), int(2 * scale * GIB), combined_bytes)
    times = {
        RestorePhase.PLAN: 1.0,
        RestorePhase.DOWNLOAD: seconds_a_gib * scale,
        RestorePhase.VERIFY: 8.0 * scale,
        RestorePhase.FINISH: 4.0 * scale,
        RestorePhase.START: 2.0,
        RestorePhase.REPLAY: 40.0 * scale,
        RestorePhase.OPEN: 3.0,
    }
    times |= {RestorePhase(name): value for name, value in seconds.items()}
    return MeasuredRestore(host, MeasuredBy.DRILL, AT - timedelta(days=days_ago), work, times)


def test_bytes_take_as_long_as_their_rate_says() -> None:
    """Ten times the bytes take ten times as long, and what has nothing to do with bytes takes as long as it did."""
    found = predict_restore(WORK, [measured()], "db1")
    assert {one.phase.value: one.seconds for one in found.phases} == pytest.approx(
        {"plan": 1.0, "download": 100.0, "verify": 80.0, "finish": 40.0, "start": 2.0, "replay": 400.0, "open": 3.0}
    )
    assert found.seconds == pytest.approx(626.0)
    assert found.without_replay_seconds == pytest.approx(226.0)
    assert (found.unmeasured, found.is_guess, found.newest_at) == ((), False, AT - timedelta(days=1))


def test_nothing_measured_is_not_known() -> None:
    """There is no number out of nothing."""
    found = predict_restore(WORK, [], "db1")
    assert (found.seconds, found.without_replay_seconds, found.newest_at) == (None, None, None)
    assert all(one.seconds is None for one in found.phases)


def test_what_was_never_measured_is_named() -> None:
    """A restore that was not verified and not started says nothing of these phases: what is left is the least."""
    partly = dict.fromkeys((RestorePhase.PLAN, RestorePhase.DOWNLOAD, RestorePhase.FINISH), 1.0)
    one = MeasuredRestore("db1", MeasuredBy.RESTORE, AT, RestoreWork(("r2",), GIB, 4 * GIB, GIB), partly)
    found = predict_restore(WORK, [one], "db1")
    assert found.seconds == pytest.approx(1.0 + 10.0 + 10.0)
    assert [phase.value for phase in found.unmeasured] == ["verify", "start", "replay", "open"]
    assert found.of([RestorePhase.DOWNLOAD, RestorePhase.REPLAY]) is None


def test_a_time_without_download_and_replay_is_none() -> None:
    """They are what a restore consists of."""
    one = MeasuredRestore("db1", MeasuredBy.RESTORE, AT, WORK, {RestorePhase.PLAN: 3.0, RestorePhase.VERIFY: 9.0})
    assert predict_restore(WORK, [one], "db1").seconds is None


def test_what_this_host_measured_comes_first() -> None:
    """Also where another host has measured since, and as fast as nobody here."""
    here, there = measured(30), measured(1, host="db2", seconds_a_gib=1.0)
    found = predict_restore(WORK, [there, here], "db1")
    assert {one.source for one in found.phases} == {RateSource.HERE}
    assert found.measured == (here,)


def test_another_hosts_rates_are_a_guess() -> None:
    """A new host has measured nothing."""
    found = predict_restore(WORK, [measured(host="db2")], "db1")
    assert found.seconds == pytest.approx(626.0)
    assert found.is_guess
    assert {one.source for one in found.phases} == {RateSource.OTHER_HOST}


def test_another_stores_rate_is_a_guess_where_the_store_counts() -> None:
    """Reading the files again has nothing to do with the store that they came from."""
    found = predict_restore(RestoreWork(("b2",), GIB, GIB, GIB), [measured(stores=("r2",))], "db1")
    by_phase = {one.phase: one.source for one in found.phases}
    assert by_phase[RestorePhase.DOWNLOAD] is by_phase[RestorePhase.REPLAY] is RateSource.OTHER_STORE
    assert by_phase[RestorePhase.VERIFY] is RateSource.HERE


def test_each_store_has_its_own_rate() -> None:
    """The preferred store's counts for a plan that may take from both, also where the other was measured since."""
    slow, fast = measured(3, stores=("r2",), seconds_a_gib=50.0), measured(1, stores=("b2",), seconds_a_gib=5.0)
    download = {one.phase: one for one in predict_restore(WORK, [slow, fast], "db1").phases}[RestorePhase.DOWNLOAD]
    assert (download.seconds, download.stores) == (pytest.approx(500.0), ("r2",))
    of_b2 = predict_restore(RestoreWork(("b2",), GIB, GIB, GIB), [slow, fast], "db1").phases
    assert {one.phase: one.seconds for one in of_b2}[RestorePhase.DOWNLOAD] == pytest.approx(5.0)


def test_a_large_restore_says_more_of_a_rate_than_a_small_one() -> None:
    """A small one is half overhead: counted alike, it would make the rate of the large one seem too low."""
    small = measured(1, scale=0.01, download=5.0)
    large = measured(2, scale=1.0)
    download = {one.phase: one for one in predict_restore(WORK, [small, large], "db1").phases}[RestorePhase.DOWNLOAD]
    assert download.seconds == pytest.approx(10 * 15 / 1.01)


def test_a_few_bytes_say_nothing_of_a_rate() -> None:
    """A drill just after the base backup replays almost nothing, and takes as long as any."""
    nothing = MeasuredRestore(
        "db1", MeasuredBy.DRILL, AT, RestoreWork(("r2",), GIB, 4 * GIB, 4096), {RestorePhase.REPLAY: 1.0}
    )
    replay = {one.phase: one for one in predict_restore(WORK, [nothing, measured(9)], "db1").phases}[
        RestorePhase.REPLAY
    ]
    assert replay.seconds == pytest.approx(400.0)


def test_only_the_newest_few_count() -> None:
    """A line that was made faster shows after a few drills."""
    many = [measured(days, seconds_a_gib=10.0 if days > 5 else 1.0) for days in range(1, 20)]
    download = {one.phase: one for one in predict_restore(WORK, many, "db1").phases}[RestorePhase.DOWNLOAD]
    assert (download.seconds, len(download.measured)) == (pytest.approx(10.0), 5)


def test_phases_without_work_are_left_out() -> None:
    """A full base backup combines nothing, and an unverified restore reads nothing again."""
    work = RestoreWork(("r2",), GIB, GIB, 0, verifies=False)
    assert [one.phase.value for one in predict_restore(work, [measured()], "db1").phases] == [
        "plan", "download", "finish", "start", "open",
    ]  # fmt: skip
    chain = RestoreWork(("r2",), GIB, GIB, GIB, combined_bytes=2 * GIB)
    found = predict_restore(chain, [measured(combined_bytes=GIB, combine=7.0)], "db1")
    assert found.of([RestorePhase.COMBINE]) == pytest.approx(14.0)


def test_far_more_than_was_ever_measured_is_told() -> None:
    """The rate of a small drill may not hold for a day's WAL."""
    found = predict_restore(RestoreWork(("r2",), GIB, 4 * GIB, 200 * GIB), [measured()], "db1")
    assert [one.phase.value for one in found.phases if one.is_far] == ["replay"]
