"""Damaged pages are found, and no others, on real files of PostgreSQL 18 and 15."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, give_to_postgres
from testbed.processes import ServerError
from wal_pipeline.postgres.page_checksums import Chunk, PageCheck, newest_lsn, take_together
from wal_pipeline.postgres.relation_file import parse_relation_file
from wal_pipeline.wal.lsn import MAX_LSN, Lsn

pytestmark = pytest.mark.integration
PAGE = 8192
LATE = Lsn(MAX_LSN)
Damage = Callable[[bytearray], object]


@pytest.fixture(scope="module")
def cluster(postgres_version: PostgresInstall) -> Iterator[PostgresCluster]:
    """A cluster that was never started: initdb wrote about a thousand files with checksums."""
    made = PostgresCluster(postgres_version).initdb()
    yield made
    made.remove()


def relations(cluster: PostgresCluster) -> list[Path]:
    """Return the relation files of the cluster, those without pages too."""
    folders = (cluster.pgdata / "global", *(cluster.pgdata / "base").iterdir())
    found = [path for folder in folders for path in folder.iterdir() if parse_relation_file(path.name)]
    assert len(found) > 500
    return sorted(found)


def file_of(cluster: PostgresCluster, pages: int) -> Path:
    """Return a relation file with at least so many pages, none of them new."""
    return next(
        path
        for path in relations(cluster)
        if path.stat().st_size >= pages * PAGE and all(any(page) for page in pages_of(path.read_bytes()))
    )


def pages_of(data: bytes) -> list[bytes]:
    return [data[begin : begin + PAGE] for begin in range(0, len(data), PAGE)]


def check_of(data: bytes, start_lsn: Lsn = LATE, **options: int) -> PageCheck:
    """Return a check that reads again what it was given; every page is older than the start."""
    return PageCheck(start_lsn, lambda offset: bytes(data[offset : offset + PAGE]), **options)


def damaged(data: bytes, **options: int) -> tuple[int, ...]:
    check = check_of(data, **options)
    assert check.take(data, 0) == data
    return check.damaged_blocks(LATE)


def test_each_page_of_a_cluster_is_right(cluster: PostgresCluster) -> None:
    """One file at a time in two chunks, and many together."""
    read = [path.read_bytes() for path in relations(cluster)]
    for data in read:
        middle = len(data) // PAGE // 2 * PAGE
        check = check_of(data)
        for begin, chunk in ((middle, data[middle:]), (0, data[:middle])):
            assert check.take(chunk, begin) is chunk
        assert (check.damaged_blocks(Lsn(0)), check.unchecked_bytes) == ((), 0)
    checks = [check_of(data) for data in read]
    assert take_together(list(zip(checks, read, [0] * len(read), strict=True))) == read
    assert not any(check.damaged_blocks(Lsn(0)) for check in checks)


def test_a_flipped_bit_is_found_where_pg_checksums_finds_it(cluster: PostgresCluster) -> None:
    """In the same file and block, among files that are right."""
    path = file_of(cluster, 4)
    right = path.read_bytes()
    wrong = bytearray(right)
    wrong[3 * PAGE + 5000] ^= 0x10
    path.write_bytes(wrong)
    give_to_postgres(path.parent)
    try:
        with pytest.raises(ServerError) as error:
            cluster.run("pg_checksums", "--check", f"--pgdata={cluster.pgdata}")
    finally:
        path.write_bytes(right)
    assert f'in file "{path}", block 3:' in str(error.value)
    others = [one.read_bytes() for one in relations(cluster)[:50]]
    read = [*others, bytes(wrong), *others]
    checks = [check_of(data) for data in read]
    assert take_together([(check, data, 0) for check, data in zip(checks, read, strict=True)]) == read
    assert [check.damaged_blocks(LATE) for check in checks] == [()] * 50 + [(3,)] + [()] * 50


@pytest.mark.parametrize("place", [0, 7, 8, 9, 10, 14, 23, 24, 4095, 4096, 8191])
def test_a_wrong_bit_anywhere_is_found(cluster: PostgresCluster, place: int) -> None:
    """In the LSN, in the checksum itself, in the header, and in the last byte."""
    data = bytearray(file_of(cluster, 2).read_bytes()[: 2 * PAGE])
    data[PAGE + place] ^= 0x01
    assert damaged(bytes(data)) == (1,)


def test_a_page_at_another_place_is_damaged(cluster: PostgresCluster) -> None:
    """The block number is part of the checksum; in a later file of a relation it goes on counting."""
    first, second = pages_of(file_of(cluster, 2).read_bytes())[:2]
    assert damaged(first + second) == ()
    assert damaged(second + first) == (0, 1)
    assert damaged(first + second, segment=1) == (0, 1)
    check = check_of(second)
    check.take(second, PAGE)
    assert check.damaged_blocks(LATE) == ()


def test_new_pages_are_right_only_where_they_are_all_zeros(cluster: PostgresCluster) -> None:
    """PostgreSQL refuses a page that has no upper bound and yet some content."""
    page = pages_of(file_of(cluster, 1).read_bytes())[0]
    almost = bytearray(PAGE)
    almost[-1] = 1
    assert damaged(page + bytes(PAGE) + bytes(almost)) == (2,)


def test_a_page_that_is_newer_than_the_start_is_right(cluster: PostgresCluster) -> None:
    """It may be torn; replay restores it. An LSN that the server had not reached at the end is damage itself."""
    page = bytearray(file_of(cluster, 1).read_bytes()[:PAGE])
    lsn = newest_lsn(page)
    page[5000] ^= 0x10
    found = check_of(bytes(page), lsn)
    assert found.take(page, 0) is page
    assert found.damaged_blocks(lsn) == ()
    assert found.damaged_blocks(Lsn(lsn - 1)) == (0,)
    assert damaged(bytes(page)) == (0,)


def test_a_page_that_was_being_written_is_read_again(cluster: PostgresCluster) -> None:
    """The page that is right then belongs into the copy: WAL does not restore each, such as a free space map's."""
    data = file_of(cluster, 3).read_bytes()
    torn = bytearray(data)
    torn[PAGE + 4096 : 2 * PAGE] = bytes(4096)
    asked: list[int] = []

    def read_again(offset: int) -> bytes:
        asked.append(offset)
        return bytes(torn[PAGE : 2 * PAGE]) if len(asked) == 1 else data[offset : offset + PAGE]

    check = PageCheck(LATE, read_again)
    assert check.take(memoryview(bytes(torn)), 0) == data
    assert (check.damaged_blocks(LATE), asked) == ((), [PAGE, PAGE])


def test_a_page_that_was_written_anew_meanwhile_is_right(cluster: PostgresCluster) -> None:
    """Its LSN is that of a change after the start by then, whether it is torn or not."""
    page = file_of(cluster, 1).read_bytes()[:PAGE]
    start = Lsn(newest_lsn(page) + 1)
    newer = (start >> 32).to_bytes(4, "little") + (start & 0xFFFFFFFF).to_bytes(4, "little") + page[8:]
    broken = page[:5000] + bytes([page[5000] ^ 1]) + page[5001:]
    check = PageCheck(start, lambda _: newer)
    assert check.take(broken, 0) == newer
    assert check.damaged_blocks(start) == ()


def test_a_page_that_was_cut_off_meanwhile_is_zeros(cluster: PostgresCluster) -> None:
    """Replay cuts the relation off too."""
    page = bytearray(file_of(cluster, 1).read_bytes()[:PAGE])
    page[5000] ^= 1
    check = PageCheck(LATE, lambda _: b"")
    assert check.take(page, 0) == bytes(PAGE)
    assert check.damaged_blocks(LATE) == ()


def test_without_checksums_only_lsns_are_looked_at() -> None:
    """Any bytes are right then."""
    check = PageCheck(Lsn(1), lambda _: b"", has_checksums=False)
    data = os.urandom(4 * PAGE)
    assert check.take(data, 0) is data
    assert check.damaged_blocks(Lsn(0)) == ()
    assert check.newest_lsn == newest_lsn(data) > Lsn(0)


def test_the_newest_lsn_is_that_of_all_pages() -> None:
    """Its upper half comes first; a file without pages has none."""
    pages = bytes.fromhex("16000000" + "48d874b3") + bytes(PAGE - 8) + bytes.fromhex("00000000ffffffff")
    assert newest_lsn(pages + bytes(PAGE - 8)) == Lsn.parse("16/B374D848")
    assert newest_lsn(bytes(3 * PAGE)) == newest_lsn(b"") == newest_lsn(bytes(100)) == Lsn(0)


def test_the_rest_of_a_page_is_told_as_not_checked(cluster: PostgresCluster) -> None:
    """A file whose size is odd keeps its bytes."""
    page = file_of(cluster, 1).read_bytes()[:PAGE]
    check = check_of(page)
    data: Chunk = page + b"rest"
    assert check.take(data, 0) is data
    assert (check.damaged_blocks(LATE), check.unchecked_bytes) == ((), 4)
    assert check.take(b"", 0) == b""
    assert take_together([]) == []


def test_pages_of_another_size_are_checked() -> None:
    """A server can be built with pages of 1 to 32 KiB. The values are those of PostgreSQL's algorithm, step by step."""
    for block_size in (1024, 4096, 16384, 32768):
        page = bytearray(os.urandom(block_size))
        page[8:10] = _checksum_of(page, 7).to_bytes(2, "little")
        check = PageCheck(LATE, lambda _, page=page: bytes(page), block_size=block_size)  # type: ignore[misc]
        check.take(page, 7 * block_size)
        assert check.damaged_blocks(LATE) == ()


@settings(max_examples=20)
@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=9), st.integers(0, 2**31))
def test_few_pages_and_many_have_the_same_checksums(seeds: list[bytes], block: int) -> None:
    """They are worked out in two ways; both are PostgreSQL's, step by step."""
    pages = []
    for number, seed in enumerate(seeds):
        page = bytearray(b"".join(hashlib.sha512(seed + bytes([part])).digest() for part in range(16)))
        page[8:10] = _checksum_of(page, block + number).to_bytes(2, "little")
        pages.append(bytes(page))

    def check(start_lsn: Lsn = LATE) -> PageCheck:
        return PageCheck(start_lsn, lambda _: b"\xff" * 1024, block_size=1024)

    together, alone = check(), check()
    together.take(b"".join(pages), block * 1024)
    for number, page in enumerate(pages):
        alone.take(page, (block + number) * 1024)
    assert together.damaged_blocks(LATE) == alone.damaged_blocks(LATE) == ()


def test_very_many_pages_are_checked_in_one_chunk() -> None:
    """More than are worked on at once; the last one is damaged."""
    pages = bytearray()
    one = bytearray(os.urandom(PAGE))
    for block in range(1100):
        one[8:10] = (b"\0\0") if block == 1099 else _with_block(one, block)
        pages += one
    assert damaged(bytes(pages)) == (1099,)


_SUMS: dict[bytes, int] = {}


def _with_block(page: bytearray, block: int) -> bytes:
    """Return the checksum of the same page as another block."""
    key = bytes(page[:8] + page[10:])
    if key not in _SUMS:
        _SUMS[key] = _sum_of(page)
    return ((_SUMS[key] ^ block) % 65535 + 1).to_bytes(2, "little")


def _checksum_of(page: bytearray, block: int) -> int:
    return (_sum_of(page) ^ block) % 65535 + 1


def _sum_of(page: bytearray) -> int:
    """Return pg_checksum_block of a page, number by number, as checksum_impl.h has it."""
    zeroed = bytes(page[:8]) + b"\0\0" + bytes(page[10:])
    words = [int.from_bytes(zeroed[place : place + 4], "little") for place in range(0, len(page), 4)]
    sums = list(_OFFSETS)
    for place, word in enumerate([*words, *[0] * 64]):
        mixed = sums[place % 32] ^ word
        sums[place % 32] = (mixed * 16777619 & 0xFFFFFFFF) ^ mixed >> 17
    result = 0
    for one in sums:
        result ^= one
    return result


_OFFSETS = [
    *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C),
    *(0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB),
    *(0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4),
    *(0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
]
