"""Lists of relations stay with the base backups of their store: those taken since the oldest, and one from before."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.keys import moment_name
from wal_pipeline.archive.retention.plan import Expired, ObjectKind, RetentionPlan, Step, plan_retention
from wal_pipeline.archive.retention.proof import Listed, prove_plan
from wal_pipeline.archive.retention.relations import HeldList, judge_lists, list_name
from wal_pipeline.archive.retention.rules import RetentionRule
from wal_pipeline.errors import RetentionError
from wal_pipeline_tests.support.archive_worlds import DAY, SIZE, backup, contents, day, day_segments, name

NOW, BEGINS_AT = day(30), day(20)


def at(days: float) -> str:
    return moment_name(day(days))


def backup_id(days: float) -> str:
    return f"{at(days)}-{name(1, 5)}"


def staying(days: Sequence[float], backups: Sequence[float], begins_at: datetime = BEGINS_AT) -> list[float]:
    """Return the days whose lists stay."""
    lists = {at(one): HeldList(1, 10) for one in days}
    found = judge_lists(lists, [backup_id(one) for one in backups], begins_at, NOW)
    return [one for one in days if found[at(one)].kept]


@pytest.mark.parametrize(
    ("days", "backups", "expected"),
    [
        ([1, 2, 3, 4, 5], [3.5, 4], [3, 4, 5]),
        ([1, 2, 3], [3], [3]),
        ([1, 2, 3], [0.5], [1, 2, 3]),
        ([1, 2], [10], [2]),
        ([10, 15, 19, 21], [], [19, 21]),
        ([40, 41], [3], [40, 41]),
        ([], [3], []),
    ],
    ids=["since", "same second", "all younger", "all older", "no base backup", "of the future", "none"],
)
def test_the_lists_since_the_oldest_base_backup_stay(
    days: list[float], backups: list[float], expected: list[float]
) -> None:
    """And the one that was in force when it began."""
    assert staying(days, backups) == expected


def test_a_base_backup_whose_id_says_no_moment_keeps_all() -> None:
    """What could not be read counts as needed."""
    found = judge_lists({at(1): HeldList(1, 1), at(2): HeldList(1, 1)}, [backup_id(9), "foreign"], BEGINS_AT, NOW)
    assert {one.reason for one in found.values()} == {"base backup 'foreign' does not say when it began"}


def listed_for_proof(days: Sequence[float], backups: Sequence[float]) -> Listed:
    return Listed(
        backup_ids=frozenset(map(backup_id, backups)),
        whole={},
        chains={},
        names=frozenset(),
        files={},
        wal_segment_size=SIZE,
        segment_sizes=frozenset({SIZE}),
        histories={},
        lists=frozenset(map(at, days)),
    )


def removing(*days: float) -> RetentionPlan:
    steps = tuple(Expired(list_name(at(one)), Step.RELATIONS, 1, "a reason") for one in days)
    return RetentionPlan("r2", NOW, BEGINS_AT, (), steps, ())


@given(st.sets(st.integers(0, 29), max_size=8), st.sets(st.integers(0, 29), max_size=3))
def test_the_proof_lets_pass_what_the_rule_removes_and_nothing_more(days: set[int], backups: set[int]) -> None:
    """It knows nothing of the rule; each list that stays would be an objection."""
    there, kept = listed_for_proof(sorted(days), sorted(backups)), set(staying(sorted(days), sorted(backups)))
    prove_plan(removing(*sorted(days - kept)), there)
    for one in kept:
        with pytest.raises(RetentionError, match=r"the list of relations of \w+, and no newer one from before"):
            prove_plan(removing(*sorted({*(days - kept), one})), there)


def test_the_plan_says_of_each_list_why_it_stays_or_goes() -> None:
    """The steps come before those of WAL files, and the bytes are counted."""
    archive = contents(
        day_segments(1, range(1, 21)),
        [
            replace(backup(f"{at(2)}-a", 1, 2.1, 2.5), started_at=day(2)),
            replace(backup(f"{at(8)}-b", 1, 8.1, 8.5), started_at=day(8)),
        ],
    )
    lists = {at(one): HeldList(1, 10) for one in (1, 7, 7.5, 9)}
    plan = plan_retention(archive, "r2", day(21), RetentionRule(window=10 * DAY, minimum_backups=1), lists=lists)
    kept = {one.name: one.reason for one in plan.keep if one.kind is ObjectKind.RELATIONS}
    oldest = f"base backup {at(8)}-b, the oldest that stays, began"
    assert kept == {
        f"relations/{at(7.5)}": f"the newest list from before {oldest}",
        f"relations/{at(9)}": f"taken after {oldest}",
    }
    gone = [one for one in plan.expire if one.step is Step.RELATIONS]
    assert gone == [
        Expired(f"relations/{at(one)}", Step.RELATIONS, 10, f"a newer list is from before {oldest}") for one in (1, 7)
    ]


def test_a_list_of_a_clock_that_was_ahead_does_not_stand_for_the_real_one() -> None:
    """A base backup of the future would otherwise make a list of the future the newest one before it."""
    ahead = NOW + timedelta(days=400)
    lists = {at(5): HeldList(1, 1), moment_name(ahead): HeldList(1, 1)}
    found = judge_lists(lists, [f"{moment_name(ahead + DAY)}-{name(1, 5)}"], BEGINS_AT, NOW)
    assert all(one.kept for one in found.values())
