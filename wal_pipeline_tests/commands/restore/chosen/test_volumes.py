"""The volumes that are left out hold nothing that is wanted, wherever a tar is cut."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.base_backup.file_index import FileIndex, FilePart, IndexedFile
from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest
from wal_pipeline.archive.format.base_backup.tar_cuts import (
    TarCut,
    cuts_to_json,
    parse_cuts,
    parse_volume_databases,
)
from wal_pipeline.archive.format.database_folders import database_of
from wal_pipeline.archive.records import Codec
from wal_pipeline.commands.restore.chosen.volumes import fetched_bytes, volumes_left_out, volumes_of_databases
from wal_pipeline.commands.restore.untar import untar_volume
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.postgres.tar_watch import BLOCK_BYTES, TarWatch
from wal_pipeline_tests.support.manifests import make_local_manifest, make_manifest
from wal_pipeline_tests.support.manifests import make_tar as make_volumes
from wal_pipeline_tests.support.tars import make_tar, produced

Member = tuple[str, bytes | None, int]
_OIDS = (1, 5, 16384, 16385, 16386)
_SPACE = "PG_15_202209061"


def folder_of(folder: str, sizes: Sequence[int]) -> list[Member]:
    """A folder and its files, the one after the other, as PostgreSQL sends them."""
    files = [
        (f"{folder}/{number}", (f"{folder}/{number} ".encode() * (size // 9 + 1))[:size], 0o600)
        for number, size in enumerate(sizes, 1)
    ]
    return [(folder, None, 0o700), *files]


SIZES = st.lists(st.integers(0, 5000), max_size=4)
DATABASES = st.lists(st.tuples(st.sampled_from(_OIDS), SIZES), unique_by=lambda one: one[0], max_size=5)


def cut_up(tar: bytes, size: int, name: str) -> tuple[list[bytes], list[TarCut | None], list[frozenset[int]]]:
    """Cut a tar into volumes of so many bytes, and have it watched."""
    watch = TarWatch({}, size, name)
    for start in range(0, len(tar), 700):
        watch.feed(tar[start : start + 700])
    volumes = [tar[start : start + size] for start in range(0, len(tar), size)]
    return volumes, watch.cuts[: len(volumes) - 1], [frozenset(some) for some in watch.databases[: len(volumes)]]


@given(
    st.sampled_from(["base", "16400"]),
    DATABASES,
    st.sets(st.sampled_from(_OIDS)),
    st.tuples(SIZES, st.integers(1, 12)),
    st.booleans(),
)
def test_every_wanted_byte_arrives(
    name: str,
    databases: list[tuple[int, list[int]]],
    left_out: set[int],
    shape: tuple[list[int], int],
    known: bool,
) -> None:
    """By the index and, without it, by the rule: what is wanted is whole, and nothing of the others is written."""
    around, blocks = shape
    top = "base" if name == "base" else _SPACE
    members = [("first", b"f" * 600, 0o600), (top, None, 0o700)]
    for oid, sizes in databases:
        members += folder_of(f"{top}/{oid}", sizes)
    members += folder_of("last", around)
    tar = make_tar(*members)
    parts, cuts, holds = cut_up(tar, blocks * BLOCK_BYTES, name)
    volumes = make_volumes(name, [len(part) for part in parts], Codec.NONE, False)
    unneeded = volumes_left_out(volumes, cuts, holds if known else None, left_out)

    def leaves(member: str) -> bool:
        return database_of(member, name) in left_out

    begins = [None, *cuts]
    with TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            if number not in unneeded:
                end = untar_volume(produced(part), Path(folder), begins[number], leaves, last=number == len(parts) - 1)
                assert end == (*cuts, None)[number]
        found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    assert found == {path: data for path, data, _ in members if data is not None and not leaves(path)}


@given(DATABASES, st.integers(1, 12))
def test_the_index_leaves_out_all_that_the_rule_does(databases: list[tuple[int, list[int]]], blocks: int) -> None:
    """The rule for base backups of earlier versions is sure, and the index knows more."""
    members: list[Member] = [("base", None, 0o700)]
    for oid, sizes in databases:
        members += folder_of(f"base/{oid}", sizes)
    parts, cuts, holds = cut_up(make_tar(*members), blocks * BLOCK_BYTES, "base")
    volumes = make_volumes("base", [len(part) for part in parts], Codec.NONE, False)
    for left_out in ({16385}, {1, 5}, set(_OIDS)):
        by_rule = volumes_left_out(volumes, cuts, None, left_out)
        assert by_rule <= volumes_left_out(volumes, cuts, holds, left_out)


def test_a_volume_within_one_large_file_is_left_out_by_the_rule() -> None:
    """One that begins in one database and ends in another is not: anything may lie between the two."""
    inside, other = TarCut("base/16385/1", 9000, 512), TarCut("base/16386/1", 9000, 512)
    volumes = make_volumes("base", [10] * 5, Codec.NONE, False)
    cuts = [inside, inside, other, None]
    assert volumes_left_out(volumes, cuts, None, {16385, 16386}) == {1}
    assert volumes_left_out(volumes, cuts, None, {16386}) == frozenset()
    assert volumes_left_out(volumes, cuts, None, set()) == frozenset()


def indexed() -> BaseBackupManifest:
    """A base backup with a tablespace."""
    return make_manifest(
        tars=(make_volumes("base", [10, 4], Codec.NONE, False), make_volumes("16400", [3], Codec.NONE, False))
    )


def test_the_index_is_kept_with_the_cuts() -> None:
    """Both are read from one object; an earlier version's has only the cuts."""
    cuts = {"base": [None], "16400": []}
    holds = {"base": [frozenset({0}), frozenset({0, 5})], "16400": [frozenset({16385})]}
    data = cuts_to_json(cuts, holds)
    assert data == b'{"base":[null],"16400":[],"databases":{"base":[[0],[0,5]],"16400":[[16385]]}}'
    assert parse_cuts(data, indexed()) == {"base": (None,), "16400": ()}
    found = parse_volume_databases(data, indexed())
    assert found == {"base": (frozenset({0}), frozenset({0, 5})), "16400": (frozenset({16385}),)}
    assert parse_volume_databases(cuts_to_json(cuts), indexed()) is None


@pytest.mark.parametrize(
    "databases",
    [
        "7",
        "{}",
        '{"base":[[0],[5]]}',
        '{"base":[[0]],"16400":[[1]]}',
        '{"base":[[0],[-5]],"16400":[[1]]}',
        '{"base":[[0],[true]],"16400":[[1]]}',
        '{"base":[[0],7],"16400":[[1]]}',
    ],
)
def test_an_index_that_does_not_fit_is_refused(databases: str) -> None:
    """It is never used in part: a volume that is left out by mistake would be a lost file."""
    data = f'{{"base":[null],"16400":[],"databases":{databases}}}'.encode()
    with pytest.raises(BaseBackupError) as caught:
        parse_volume_databases(data, indexed())
    assert caught.value.message.startswith(f"the volumes' databases of base backup '{indexed().backup_id}' cannot be")


def one_file(path: str, *volumes: int) -> IndexedFile:
    """A file that lies in these volumes."""
    parts = tuple(FilePart(number, place, 1, "00000000") for place, number in enumerate(volumes))
    return IndexedFile(path, len(parts), 0, 0o600, "00000000", parts)


def test_volumes_of_files_that_are_left_out() -> None:
    """A volume of an earlier base backup counts by what is still wanted of it."""
    files = (
        one_file("base/5/1", 0, 1),
        one_file("base/6/1", 2),
        one_file("base/6/2", 3),
        one_file("pg_tblspc/9/PG_18_1/6/1", 4),
        one_file("base/5/2", 3),
        one_file("global/1", 5),
    )
    index = FileIndex({file.path: file for file in files}, {})
    assert volumes_of_databases(index, {6}) == {2, 4}
    assert volumes_of_databases(index, {5, 6}) == {0, 1, 2, 3, 4}
    assert volumes_of_databases(index, set()) == frozenset()


def test_a_plan_counts_the_volumes_wherever_they_lie() -> None:
    """And of a base backup that is one long tar all objects."""
    local, remote = make_local_manifest(own=2, referred=3), make_manifest()
    assert fetched_bytes(local) == 5 * 400
    assert fetched_bytes(remote) == remote.stored_size_bytes
