"""The proof of a retention plan: each thing that must not go is an objection, whatever made the plan."""

from dataclasses import replace
from datetime import datetime

from wal_pipeline.archive.records import BaseBackup, WalFile
from wal_pipeline.archive.retention.pieces import pieces_name
from wal_pipeline.archive.retention.plan import Expired, RetentionPlan, Step
from wal_pipeline.archive.retention.proof import Listed, prove_plan
from wal_pipeline.errors import RetentionError
from wal_pipeline_tests.support.archive_worlds import (
    SIZE,
    backup,
    day,
    day_segments,
    history,
    name,
    other_file,
    segment,
)

NOW = day(30)


def whole(timeline: int, number: int, at: datetime | None = None, parent: str | None = None) -> BaseBackup:
    """Return a base backup of one segment, with the id that says so."""
    started_at = at or day(number)
    return backup(
        id_of(timeline, number, started_at), timeline, number + 0.1, number + 0.5, parent=parent, at=started_at
    )


def id_of(timeline: int, number: int, at: datetime | None = None) -> str:
    return f"{at or day(number):%Y%m%dT%H%M%SZ}-{name(timeline, number)}"


def listed(*backups: BaseBackup, unread: tuple[str, ...] = (), files: tuple[WalFile, ...] = ()) -> Listed:
    """Return a store with segments 1 to 20 of timeline 1, base backups, and the ids of some that cannot be read."""
    known = {file.name: file for file in (*day_segments(1, range(1, 21)), *files)}
    chains = {one.backup_id: () if one.parent_id is None else (one.parent_id,) for one in backups}
    return Listed(
        backup_ids=frozenset({one.backup_id for one in backups} | set(unread)),
        whole={one.backup_id: one for one in backups},
        chains=chains,
        names=frozenset(known),
        files=known,
        wal_segment_size=SIZE,
        segment_sizes=frozenset({SIZE}),
        histories={},
    )


def plan(*steps: str) -> RetentionPlan:
    """Return a plan that removes files and base backups, by name and id."""
    kinds = [(one, kind_of(one)) for one in steps]
    expire = tuple(Expired(one, kind, 1, "a reason") for one, kind in kinds)
    return RetentionPlan("r2", NOW, day(20), (), expire, ())


def kind_of(step: str) -> Step:
    if step.startswith("tail/"):
        return Step.PIECES
    return Step.BACKUP_MANIFEST if "T" in step else Step.WAL_FILE


def objection(made: RetentionPlan, there: Listed) -> str | None:
    try:
        prove_plan(made, there)
    except RetentionError as error:
        assert error.hint == (
            "This is an error in the program: report it with the output of 'wal-pipeline expire --json'."
        )
        return error.message.removeprefix("r2: the plan would remove ").removesuffix("; nothing expires")
    return None


def test_a_plan_that_takes_what_is_older_than_all_base_backups_passes() -> None:
    """Also an older base backup that is whole, and one that is not where a newer one stands for it."""
    a, b = whole(1, 3), whole(1, 8)
    there = listed(a, b, unread=(id_of(1, 2),))
    assert objection(plan(id_of(1, 2), a.backup_id, *(name(1, number) for number in range(1, 8))), there) is None


def test_no_wal_of_a_base_backup_that_cannot_be_read_goes() -> None:
    """On its own timeline and on newer ones, by nothing but its id."""
    lost = id_of(1, 5)
    there = listed(whole(1, 8), unread=(lost,), files=(segment(2, 6, day(7)), segment(2, 4, day(7))))
    for file in (name(1, 5), name(1, 7), name(2, 6)):
        assert objection(plan(file), there) == f"'{file}', which base backup '{lost}' could need, which is not whole"
    assert objection(plan(name(1, 4)), there) is None


def test_no_base_backup_goes_on_which_another_may_be_built() -> None:
    """By its chain, or for one that cannot be read by its age alone."""
    full, later = whole(1, 3), whole(1, 8)
    child = whole(1, 5, parent=full.backup_id)
    wanted = f"base backup '{full.backup_id}', on which base backup '{child.backup_id}' may be built"
    assert objection(plan(full.backup_id), listed(full, child, later)) == wanted
    lost = id_of(1, 6)
    wanted = f"base backup '{child.backup_id}', on which base backup '{lost}' may be built"
    assert objection(plan(child.backup_id), listed(full, child, later, unread=(lost,))) == wanted


def test_no_base_backup_that_is_not_whole_goes_without_a_newer_one() -> None:
    """A newer one counts where it finished before the window began."""
    lost = id_of(1, 2)
    wanted = f"base backup '{lost}', which is not whole, and no newer one stands for it"
    assert objection(plan(lost), listed(whole(1, 1), unread=(lost,))) == wanted
    assert objection(plan(lost), listed(whole(1, 4, at=day(25)), unread=(lost,))) == wanted
    assert objection(plan(lost), listed(whole(1, 4), unread=(lost,))) is None


def test_the_newest_base_backup_that_can_be_restored_stays() -> None:
    """One whose segments are not there does not count."""
    a, b = whole(1, 8), whole(1, 30)
    assert objection(plan(a.backup_id), listed(a, b)) == (
        f"base backup '{a.backup_id}', the newest that can be restored"
    )


def test_no_history_file_goes() -> None:
    """Whatever its timeline."""
    there = listed(whole(1, 8), files=(other_file("00000002.history", day(1)),))
    assert objection(plan("00000002.history"), there) == "'00000002.history', a timeline history file"


def test_nothing_of_another_segment_size_goes() -> None:
    """Neither files nor base backups; where there are several sizes, nothing of an unknown one either."""
    wide = replace(segment(1, 2, day(3)), wal_segment_size=4 * SIZE)
    plain = other_file(f"{name(1, 3)}.00000028.backup", day(3))
    there = replace(listed(whole(1, 8), files=(wide, plain)), segment_sizes=frozenset({SIZE, 4 * SIZE}))
    assert objection(plan(wide.name), there) == f"'{wide.name}', whose segment size is {4 * SIZE}, expected {SIZE}"
    assert objection(plan(plain.name), there) == f"'{plain.name}', whose segment size is not known, expected {SIZE}"
    old = replace(whole(1, 2), wal_segment_size=4 * SIZE)
    there = listed(old, whole(1, 8))
    assert objection(plan(old.backup_id), there) == f"base backup '{old.backup_id}', whose WAL has another segment size"


def test_nothing_of_which_nothing_is_known_goes() -> None:
    """It is on the store, and neither recorded nor readable."""
    there = listed(whole(1, 8))
    there = replace(there, files={key: one for key, one in there.files.items() if key != name(1, 2)})
    assert objection(plan(name(1, 2)), there) == f"'{name(1, 2)}', of which nothing is known"


def test_wal_that_a_whole_base_backup_needs_stays() -> None:
    """Along its timeline, and along the way to a newer one."""
    a = whole(1, 8)
    wanted = f"which base backup '{a.backup_id}' needs on its way to timeline"
    assert objection(plan(name(1, 15)), listed(a)) == f"'{name(1, 15)}', {wanted} 1"
    newer = tuple(segment(2, number, day(number + 1)) for number in range(12, 16))
    there = replace(listed(a, files=newer), histories={2: history(2, 1, 12.3)})
    assert objection(plan(name(1, 11)), there) == f"'{name(1, 11)}', {wanted} 1"
    assert objection(plan(name(2, 13)), there) == f"'{name(2, 13)}', {wanted} 2"


def test_an_abandoned_branch_may_go_once_nothing_of_it_is_in_the_window() -> None:
    """What follows the switch on the older timeline; before it, all stays."""
    a = whole(1, 8)
    newer = tuple(segment(2, number, day(number + 1)) for number in range(12, 40))
    old = replace(listed(a, files=newer), histories={2: history(2, 1, 12.3)})
    young = replace(plan(name(1, 15)), window_starts_at=day(14))
    assert objection(replace(young, window_starts_at=day(25)), old) is None
    assert objection(young, old) is not None
    assert objection(replace(plan(name(1, 11)), window_starts_at=day(25)), old) is not None


def test_a_history_that_cannot_be_read_excludes_nothing() -> None:
    """Its file is there: each base backup of an older timeline may lead to its timeline."""
    a = whole(1, 8)
    newer = tuple(segment(2, number, day(number + 1)) for number in range(12, 40))
    there = listed(a, files=(*newer, other_file("00000002.history", day(1))))
    late = replace(plan(name(1, 15)), window_starts_at=day(35))
    assert objection(late, there) is not None
    assert objection(replace(plan(name(2, 14)), window_starts_at=day(35)), there) is not None


def test_pieces_go_only_beside_a_verified_segment_or_with_one_that_nothing_needs() -> None:
    """Where the whole segment is not proven, what a base backup needs stays, and what is younger than the window."""
    a = whole(1, 8)
    there = replace(listed(a), pieces_at={name(1, number): day(number + 1) for number in (3, 20, 21)})
    assert objection(plan(pieces_name(name(1, 3))), there) is None
    young = replace(there, pieces_at={name(1, 3): day(29)})
    wanted = f"the pieces of '{name(1, 3)}', which are younger than the window"
    assert objection(plan(pieces_name(name(1, 3))), young) == wanted
    late = replace(plan(pieces_name(name(1, 20))), window_starts_at=day(28))
    wanted = f"the pieces of '{name(1, 20)}', which base backup '{a.backup_id}' needs on its way to timeline 1"
    assert objection(late, there) == wanted
    assert objection(late, replace(there, proven=frozenset({name(1, 20)}))) is None
    gone = replace(there, proven=frozenset({name(1, 20)}), names=there.names - {name(1, 20)})
    assert objection(late, gone) == wanted


def test_pieces_of_a_newer_timeline_than_all_else_stay() -> None:
    """Nobody can say whether anything leads there."""
    there = replace(listed(whole(1, 8)), pieces_at={name(2, 3): day(4)})
    assert objection(plan(pieces_name(name(2, 3))), there) == (
        f"the pieces of '{name(2, 3)}', a timeline of which nothing else is there"
    )
