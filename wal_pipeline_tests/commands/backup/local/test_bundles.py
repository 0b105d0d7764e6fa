"""Bundles hold relations of one database only, or what is no relation, large files first, and every file once."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.commands.backup.local.bundles import plan_bundles
from wal_pipeline.postgres.data_files import DataFile

LIMIT = 100


@st.composite
def _files(draw: st.DrawFn) -> list[DataFile]:
    database = st.sampled_from([None, 1, 5])
    drawn = draw(st.lists(st.tuples(st.integers(0, 250), database, st.booleans(), st.booleans()), max_size=40))
    return [
        DataFile(f"f{n}", Path(f"f{n}"), size, 0, 0o600, is_folder=is_folder, relation=relation, database=database)
        for n, (size, database, is_folder, relation) in enumerate(drawn)
    ]


def _owner(file: DataFile) -> int | None:
    """The database of a relation's file; None for all other files."""
    return file.database if file.relation else None


@given(files=_files(), unsure=st.sets(st.sampled_from([f"f{n}" for n in range(40)])))
def test_every_file_is_in_one_bundle_of_its_kind(files: list[DataFile], unsure: set[str]) -> None:
    """No bundle is larger than a volume unless it is one file; folders are in none."""
    bundles = plan_bundles(files, LIMIT, unsure)
    assert sorted(one.path for bundle in bundles for one in bundle) == sorted(
        one.path for one in files if not one.is_folder
    )
    sizes = [sum(one.size_bytes for one in bundle) for bundle in bundles]
    assert sizes == sorted(sizes, reverse=True)
    for bundle, size in zip(bundles, sizes, strict=True):
        assert len({(_owner(one), one.path in unsure) for one in bundle}) == 1
        assert size <= LIMIT or len(bundle) == 1


def test_small_files_are_bundled_until_a_volume_is_full() -> None:
    """Three of forty bytes make two bundles, not three."""
    files = [DataFile(f"f{n}", Path(f"f{n}"), 40, 0, 0o600, relation=True, database=1) for n in range(3)]
    assert [[one.path for one in bundle] for bundle in plan_bundles(files, LIMIT)] == [["f0", "f1"], ["f2"]]


def test_what_always_comes_anew_lies_together() -> None:
    """The maps of all databases are in one bundle, so that a restore that keeps the rest fetches one volume."""
    names = [f"base/{database}/{name}" for database in (1, 5) for name in ("1249", "PG_VERSION", "pg_filenode.map")]
    files = [
        DataFile(name, Path(name), 10, 0, 0o600, relation=name.endswith("1249"), database=int(name.split("/")[1]))
        for name in names
    ]
    bundles = [{one.path for one in bundle} for bundle in plan_bundles(files, LIMIT)]
    assert sorted(bundles, key=len) == [{names[0]}, {names[3]}, {*names[1:3], *names[4:]}]
