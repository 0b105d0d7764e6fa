"""Names become oids by the lists of a cluster's databases; what no list knows is brought back."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.restore.chosen.databases import (
    ChosenDatabases,
    choose_databases,
    needed_of,
    replay_settings,
    require_copy,
    sort_databases,
)
from wal_pipeline.commands.restore.chosen.left_out import LeftOutDatabases
from wal_pipeline.errors import RestoreError
from wal_pipeline_tests.support.manifests import make_manifest, make_tar

_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Named:
    """A database of a list."""

    oid: int
    name: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A list."""

    taken_at: datetime
    databases: tuple[Named, ...]


def listed(hours: int, **names: int) -> Listed:
    """A list taken so many hours after the end of the base backup."""
    system = (Named(1, "template1"), Named(4, "template0"), Named(5, "postgres"))
    return Listed(_AT + timedelta(hours=hours), (*system, *(Named(oid, name) for name, oid in names.items())))


def test_the_others_are_left_out_and_the_clusters_own_never() -> None:
    """Wanted, left out, and neither: template0, template1 and postgres."""
    assert sort_databases(["b"], [listed(-1, a=16385, b=16386, c=16387)], _AT) == ({16386}, {16385: "a", 16387: "c"})


def test_a_postgres_that_was_made_again_is_the_clusters_own() -> None:
    """It is known by its name too, once its oid is no longer initdb's."""
    again = Listed(_AT, (Named(1, "template1"), Named(16390, "postgres"), Named(16385, "a"), Named(16386, "b")))
    assert sort_databases(["a"], [again], _AT) == ({16385}, {16386: "b"})


def test_a_database_that_had_the_name_at_any_time_since_is_wanted() -> None:
    """Renamed, made again, or created later: each oid that had the name comes."""
    lists = [listed(3, b=16386, c=16390), listed(-9, old=16300), listed(-1, a=16386, c=16387, d=16388)]
    assert sort_databases(["a"], lists, _AT) == ({16386}, {16387: "c", 16388: "d", 16390: "c"})
    assert sort_databases(["b"], lists, _AT) == ({16386}, {16387: "c", 16388: "d", 16390: "c"})
    assert sort_databases(["c"], lists, _AT) == ({16387, 16390}, {16386: "b", 16388: "d"})


def test_a_list_from_after_the_base_backup_alone_will_do() -> None:
    """An oid keeps its database: one that was dropped before is in no list, and comes."""
    assert sort_databases(["a"], [listed(5, a=16385, b=16386)], _AT) == ({16385}, {16386: "b"})


def test_a_name_that_no_list_knows_is_refused() -> None:
    """With the nearest names and those there are; a list that was replaced before the base backup tells nothing."""
    lists = [listed(-9, shop=16300), listed(-1, shop_1=16385, shop_2=16386)]
    with pytest.raises(RestoreError) as caught:
        sort_databases(["shop"], lists, _AT)
    assert caught.value.message == (
        "no database is called 'shop' (did you mean 'shop_2' or 'shop_1'?), expected one of: postgres, shop_1, "
        "shop_2, template0, template1"
    )
    assert caught.value.hint == (
        "Upper and lower case count. The newest list of the databases is of 2026-11-22 11:00:00+00:00: for one that "
        "was created later, restore without --only-database."
    )


def test_without_names_nothing_is_chosen_and_without_lists_nothing_is_left_out() -> None:
    """What cannot be known counts as needed."""
    chain = (make_manifest(),)
    assert choose_databases((), chain, [], [], lambda *_: ([], [])) is None
    chosen = choose_databases(("a", "a"), chain, [], [], lambda *_: ([], ["r2 does not answer"]))
    assert chosen == ChosenDatabases(
        ("a",),
        frozenset(),
        LeftOutDatabases(),
        0,
        (
            "r2 does not answer",
            "no list of the cluster's databases is at hand, so that all files are restored: nothing is saved",
        ),
    )
    assert needed_of(chosen, chain) == chain
    assert replay_settings(chosen) == replay_settings(None) == {}


def test_a_base_backup_whose_index_cannot_be_read_is_fetched_whole() -> None:
    """The plan says so, and the other databases' files are left out all the same."""
    manifest = make_manifest()
    chosen = choose_databases(("a",), (manifest,), [], [], lambda *_: ([listed(-1, a=16385, b=16386)], []))
    assert chosen is not None
    assert (chosen.saved_bytes, chosen.left_out_names) == (0, ("b",))
    assert replay_settings(chosen) == {"ignore_invalid_pages": "on"}


def test_what_is_needed_has_the_sizes_that_are_left() -> None:
    """The plan's bytes and the disk's room follow from it."""
    tar = make_tar("base", [1000, 1000, 500], Codec.ZSTD, False)
    manifest = make_manifest(tars=(tar,))
    left_out = LeftOutDatabases({16386: "b"}, {(manifest.backup_id, "base"): frozenset({1})})
    [needed] = needed_of(ChosenDatabases(("a",), frozenset({16385}), left_out, 0), (manifest,))
    assert needed.tar("base").objects == (tar.objects[0], tar.objects[2])
    assert needed.size_bytes == 1500
    assert needed.stored_size_bytes == manifest.stored_size_bytes - tar.objects[1].size_bytes


def test_only_a_copy_has_some_databases() -> None:
    """A replacement would archive, and push out what has the others."""
    require_copy((), is_copy=False)
    require_copy(("a",), is_copy=True)
    with pytest.raises(RestoreError) as caught:
        require_copy(("a",), is_copy=False)
    assert caught.value.message == (
        "a server with only some of the databases cannot take its original's place: what it archives would in time "
        "push out the last base backups that have the others"
    )
