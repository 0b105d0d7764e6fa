"""Files and copies: what was written is read back the same on both databases."""

from dataclasses import replace
from datetime import timedelta

import pytest

from wal_pipeline.archive.records import CommitTimes, Copy, CopyStatus, KnownCopy
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.catalog.files import CopyFilter, CopyTotal
from wal_pipeline.errors import CatalogError
from wal_pipeline_tests.support.catalog_records import NOON, SYSTEM_IDENTIFIER, copy_of, history, segment
from wal_pipeline_tests.support.clock import TestClock


def test_verified_file_is_read_back_whole(catalog: Catalog) -> None:
    """A segment with the highest system identifier and LSN comes back equal, and so do its copies."""
    file = segment(2**40 - 1)
    copies = [copy_of(file, "b2"), copy_of(file, "r2")]
    catalog.files.record_verified(file, copies)
    key = (SYSTEM_IDENTIFIER, file.name)
    assert catalog.files.files_of([file.name]) == {key: file}
    assert catalog.files.copies_of([file.name]) == {key: {"b2": copies[0], "r2": copies[1]}}


def test_history_file_is_read_back_whole(catalog: Catalog) -> None:
    """A file without LSNs and commit times comes back equal."""
    file = history()
    catalog.files.record_verified(file, [copy_of(file)])
    assert list(catalog.files.files()) == [file]


def test_many_files_are_read_as_each_one_is(catalog: Catalog) -> None:
    """Whole columns give the records that single rows give: with and without LSNs, commit times and a segment size."""
    unknown = replace(segment(3), commit_times=CommitTimes.UNKNOWN, first_commit_at=None, last_commit_at=None)
    recorded = [segment(2), unknown, segment(2**40 - 1), history()]
    for file in recorded:
        catalog.files.record_verified(file, [copy_of(file)])
    found = catalog.files.files()
    assert found == sorted(recorded, key=lambda file: file.name)
    assert {(file.system_identifier, file.name): file for file in found} == catalog.files.files_of(
        [file.name for file in recorded]
    )
    assert catalog.files.files(CopyFilter(store="nowhere")) == []


def test_what_is_known_of_every_copy(catalog: Catalog) -> None:
    """Status, stored size and moment of verification, by store and name, of one system identifier."""
    first, second, other = segment(1), segment(2), segment(1, system_identifier=8)
    copies = [copy_of(first, "b2"), copy_of(first, "r2"), copy_of(second, "r2", CopyStatus.DAMAGED)]
    pending = replace(copy_of(second, "b2", CopyStatus.PENDING), encoding=None, verified_at=None)
    catalog.files.record_found([first, second, other], [*copies, pending, copy_of(other)])
    assert catalog.files.known_copies(SYSTEM_IDENTIFIER) == {
        "b2": {first.name: _known(copies[0]), second.name: KnownCopy(CopyStatus.PENDING, None, None)},
        "r2": {first.name: _known(copies[1]), second.name: _known(copies[2])},
    }
    assert catalog.files.known_copies(7) == {}


def test_segments_are_counted_by_log(catalog: Catalog) -> None:
    """By the first sixteen digits, ascending, of one system identifier; a history file is no segment."""
    per_log = (1 << 32) // (segment().wal_segment_size or 1)
    numbers = (1, 2, per_log, 3 * per_log, 3 * per_log + 1)
    found = [*(segment(number) for number in numbers), segment(1, system_identifier=8), history()]
    catalog.files.record_found(found, [])
    timeline = segment().name[:8]
    assert catalog.files.count_by_log(SYSTEM_IDENTIFIER) == [
        (f"{timeline}{log:08X}", count) for log, count in ((0, 2), (1, 1), (3, 2))
    ]


def _known(copy: Copy) -> KnownCopy:
    return KnownCopy(copy.status, None if copy.encoding is None else copy.encoding.size_bytes, copy.verified_at)


def test_moments_in_another_zone_come_back_in_utc(catalog: Catalog) -> None:
    """A moment keeps its microseconds and its time zone becomes UTC."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    file = replace(segment(), spooled_at=NOON.astimezone(ZoneInfo("Asia/Kathmandu")))
    catalog.files.record_verified(file, [copy_of(file)])
    [found] = catalog.files.files()
    assert (found.spooled_at, found.spooled_at.utcoffset()) == (NOON, timedelta(0))


def test_moment_without_zone_is_refused(catalog: Catalog) -> None:
    """A naive moment is never guessed to be UTC."""
    with pytest.raises(CatalogError, match=r"has no time zone"):
        catalog.files.record_verified(replace(segment(), spooled_at=NOON.replace(tzinfo=None)), [])


def test_same_name_of_two_system_identifiers_stays_apart(catalog: Catalog) -> None:
    """A cluster that was made again has files of the same names."""
    first, second = segment(1, system_identifier=7), segment(1, system_identifier=8, sha256="e" * 64)
    for file in (first, second):
        catalog.files.record_verified(file, [copy_of(file)])
    assert catalog.files.files_of([first.name]) == {(7, first.name): first, (8, second.name): second}
    assert set(catalog.files.copies_of([first.name])) == {(7, first.name), (8, second.name)}


def test_clusters_share_a_catalog_and_see_only_their_own(catalog: Catalog, catalog_url: str) -> None:
    """Another cluster's rows are neither read nor removed."""
    file = segment()
    catalog.files.record_verified(file, [copy_of(file)])
    other = open_catalog(catalog_url, f"{catalog.cluster}-other")
    other.files.remove_copy(SYSTEM_IDENTIFIER, [file.name], "r2")
    assert (list(other.files.files()), other.files.totals(), other.files.count()) == ([], [], 0)
    assert list(catalog.files.files()) == [file]
    other.close()


def test_other_content_than_a_store_holds_is_refused(catalog: Catalog) -> None:
    """A verified copy's content is not recorded over, and the refused write leaves nothing behind."""
    file = segment()
    catalog.files.record_verified(file, [copy_of(file, "r2")])
    with pytest.raises(CatalogError) as caught:
        catalog.files.record_verified(replace(file, sha256="f" * 64), [copy_of(file, "b2")])
    assert caught.value.message == f"file '{file.name}' is recorded with content {'a' * 64}, found {'f' * 64}"
    assert set(catalog.files.copies_of([file.name])[SYSTEM_IDENTIFIER, file.name]) == {"r2"}


def test_failure_takes_nothing_from_a_verified_copy(catalog: Catalog) -> None:
    """A second try that fails, even with other content, leaves the verified copy and its file as they were."""
    file = segment()
    catalog.files.record_verified(file, [copy_of(file)])
    catalog.files.record_failed(replace(file, sha256="f" * 64), copy_of(file, "r2", CopyStatus.FAILED))
    key = (SYSTEM_IDENTIFIER, file.name)
    assert catalog.files.files_of([file.name])[key] == file
    assert catalog.files.copies_of([file.name])[key]["r2"] == copy_of(file)


def test_failures_are_recorded_until_a_try_succeeds(catalog: Catalog) -> None:
    """The last failure is kept with its tries, then the verified copy takes its place."""
    file = segment()
    key = (SYSTEM_IDENTIFIER, file.name)
    for tries in (1, 2):
        failed = replace(copy_of(file, "r2", CopyStatus.FAILED), tries=tries)
        catalog.files.record_failed(file, failed)
        assert catalog.files.copies_of([file.name])[key]["r2"] == failed
    catalog.files.record_verified(file, [replace(copy_of(file), tries=3)])
    assert catalog.files.copies_of([file.name])[key]["r2"] == replace(copy_of(file), tries=3)


def test_ten_thousand_names_are_one_question(catalog: Catalog) -> None:
    """More names than a statement may have parameters are looked up, known or not."""
    file = segment()
    catalog.files.record_verified(file, [copy_of(file)])
    names = [segment(number).name for number in range(70_000)]
    assert list(catalog.files.files_of(names)) == [(SYSTEM_IDENTIFIER, file.name)]
    assert list(catalog.files.copies_of([])) == []


def test_filters(catalog: Catalog) -> None:
    """Each filter keeps what it names; names and moments include their ends."""
    files = [segment(number) for number in range(4)]
    for file in files:
        catalog.files.record_verified(file, [copy_of(file, "r2")])
    catalog.files.record_failed(files[1], copy_of(files[1], "b2", CopyStatus.FAILED))

    def names(only: CopyFilter) -> list[int]:
        return [files.index(file) for file in catalog.files.files(only)]

    assert names(CopyFilter(first_name=files[1].name, last_name=files[2].name)) == [1, 2]
    assert names(CopyFilter(since=files[2].spooled_at)) == [2, 3]
    assert names(CopyFilter(store="b2")) == [1]
    assert names(CopyFilter(store="b2", status=CopyStatus.VERIFIED)) == []
    assert names(CopyFilter(system_identifier=5)) == []
    assert [copy.store for copy in catalog.files.copies(CopyFilter(status=CopyStatus.FAILED))] == ["b2"]
    assert [copy.name for copy in catalog.files.copies(CopyFilter(store="r2", since=files[3].spooled_at))] == [
        files[3].name
    ]


def test_totals_per_store_and_status(catalog: Catalog) -> None:
    """Copies and stored bytes are counted; a failed copy has no bytes."""
    for file in (segment(1), segment(2)):
        catalog.files.record_verified(file, [copy_of(file, "r2")])
        catalog.files.record_failed(file, copy_of(file, "b2", CopyStatus.FAILED))
    assert catalog.files.totals() == [
        CopyTotal("b2", CopyStatus.FAILED, 2, 0),
        CopyTotal("r2", CopyStatus.VERIFIED, 2, 2000),
    ]
    assert catalog.files.count() == 2
    assert catalog.files.names_on("b2") == set()
    assert catalog.files.names_on("r2") == {(SYSTEM_IDENTIFIER, segment(number).name) for number in (1, 2)}


def test_newest_is_the_last_segment(catalog: Catalog) -> None:
    """A history file of a later timeline is not the newest segment."""
    assert catalog.files.newest() is None
    for file in (segment(9), segment(10), history()):
        catalog.files.record_verified(file, [copy_of(file)])
    assert catalog.files.newest() == segment(10)
    assert catalog.files.newest(5) is None


def test_expiry_forgets_copies_then_files(catalog: Catalog) -> None:
    """A file is forgotten with its last copy; other files stay."""
    files = [segment(1), segment(2)]
    for file in files:
        catalog.files.record_verified(file, [copy_of(file, "r2"), copy_of(file, "b2")])
    catalog.files.remove_copy(SYSTEM_IDENTIFIER, [files[0].name], "r2")
    assert list(catalog.files.files()) == files
    catalog.files.remove_copy(SYSTEM_IDENTIFIER, [files[0].name], "b2")
    assert list(catalog.files.files()) == files[1:]


def test_verification_changes_the_status_alone(catalog: Catalog, clock: TestClock) -> None:
    """A damaged copy keeps its record of the stored bytes, and so does one that was found whole again."""
    file = segment()
    key = (SYSTEM_IDENTIFIER, file.name)
    catalog.files.record_verified(file, [copy_of(file)])
    catalog.files.set_status(*key_of(file), CopyStatus.DAMAGED, last_error="r2: damaged", deep_verified_at=clock.now)
    damaged = catalog.files.copies_of([file.name])[key]["r2"]
    assert damaged == replace(copy_of(file), status=CopyStatus.DAMAGED, last_error="r2: damaged")
    assert list(catalog.frames.copies()["last_deep_verified_at"]) == [clock.now]


def key_of(file: object) -> tuple[int, list[str], str]:
    return SYSTEM_IDENTIFIER, [getattr(file, "name")], "r2"  # noqa: B009


def test_release_is_recorded(catalog: Catalog, clock: TestClock) -> None:
    """A released file says when its spool file was removed; another does not."""
    for file in (segment(1), segment(2)):
        catalog.files.record_verified(file, [copy_of(file)])
    catalog.files.mark_released(SYSTEM_IDENTIFIER, [segment(1).name], clock.now)
    released = catalog.frames.files()["released_at"]
    assert [moment == clock.now for moment in released] == [True, False]


def test_unseen_copies_are_forgotten_by_the_age_of_their_records(catalog: Catalog, clock: TestClock) -> None:
    """Copies that were recorded since the moment stay, on that store and on the others."""
    for file in (segment(1), segment(2)):
        catalog.files.record_verified(file, [copy_of(file, "r2"), copy_of(file, "b2")])
    begun_at = clock.pass_time(minutes=1)
    catalog.files.record_found([segment(2)], [copy_of(segment(2), "r2")])
    assert catalog.files.remove_unseen(SYSTEM_IDENTIFIER, "r2", begun_at) == [segment(1).name]
    assert [(copy.name, copy.store) for copy in catalog.files.copies()] == [
        (segment(1).name, "b2"),
        (segment(2).name, "b2"),
        (segment(2).name, "r2"),
    ]


def test_copy_without_its_file_is_refused(catalog: Catalog) -> None:
    """The database itself keeps a copy from being recorded of a file that nobody recorded."""
    with pytest.raises(CatalogError, match=r"(?i)foreign key"):
        catalog.files.record_found([], [copy_of(segment())])
