"""The entries of a listing's page, read as botocore would read them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import RestXMLParser
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.stores.base import StoredObject, StoredVersion
from wal_pipeline.stores.s3.listing_parser import ENTRIES, moment, objects_of, take_entries, versions_of

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-22T22:16:47.000Z</LastModified>"
    "<ETag>&quot;9DD4e4&quot;</ETag><Size>{size}</Size><Owner><ID>me</ID></Owner></Contents>"
)
_MODEL = ServiceModel(Loader().load_service_model("s3", "service-2"))


def page_of(body: str, status: int = 200) -> tuple[dict[str, Any], dict[str, Any]]:
    """A page after the entries were taken, and what is left of the answer."""
    answer = {"body": body.encode(), "status_code": status, "headers": {}}
    page: dict[str, Any] = {}
    take_entries(answer, page)
    return page, answer


def listing(*entries: str, head: str = "<IsTruncated>false</IsTruncated>", namespace: str = NAMESPACE) -> str:
    """A page of ``list_objects_v2``."""
    return f"<ListBucketResult{namespace}><Name>bucket</Name>{head}{''.join(entries)}</ListBucketResult>"


def by_botocore(body: bytes, operation: str = "ListObjectsV2") -> dict[str, Any]:
    """Return the answer as botocore reads it."""
    answer = {"body": body, "status_code": 200, "headers": {}, "context": {}}
    parsed: dict[str, Any] = RestXMLParser().parse(answer, _MODEL.operation_model(operation).output_shape)
    return parsed


@given(st.lists(st.tuples(st.from_regex(r"[a-zA-Z0-9/._-]{1,40}", fullmatch=True), st.integers(0, 2**50)), max_size=8))
def test_entries_are_what_botocore_reads(made: list[tuple[str, int]]) -> None:
    """Every key and size comes out as botocore's own parser gives them, in the order of the page."""
    body = listing(*(ENTRY.format(key=key, size=size) for key, size in made))
    page, answer = page_of(body)
    theirs = by_botocore(body.encode())
    assert [(one.key, one.size_bytes, one.modified_at) for one in objects_of(page)] == [
        (one["Key"], one["Size"], one["LastModified"]) for one in theirs.get("Contents", ())
    ]
    left = by_botocore(answer["body"])
    assert (left["Name"], left["IsTruncated"]) == (theirs["Name"], theirs["IsTruncated"])
    assert "Contents" not in left


def test_a_page_without_a_namespace_is_read() -> None:
    """Some servers leave S3's namespace out."""
    page, _ = page_of(listing(ENTRY.format(key="a", size=3), namespace=""))
    assert [one.key for one in objects_of(page)] == ["a"]


def test_keys_encoded_for_urls_are_decoded() -> None:
    """Boto3 asks for keys in the form of URLs, with '+' for a space."""
    head = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
    page, _ = page_of(listing(ENTRY.format(key="a%2Fb+c%C3%A9", size=3), head=head))
    assert [one.key for one in objects_of(page)] == ["a/b cé"]


def test_versions_and_markers_keep_their_order() -> None:
    """Only the order of the page shows which of a key's versions is the newest."""
    body = (
        f"<ListVersionsResult{NAMESPACE}><Name>bucket</Name><IsTruncated>false</IsTruncated>"
        "<DeleteMarker><Key>a</Key><VersionId>2</VersionId><IsLatest>true</IsLatest>"
        "<LastModified>2026-11-22T22:16:47Z</LastModified></DeleteMarker>"
        "<Version><Key>a</Key><VersionId>1</VersionId><IsLatest>false</IsLatest>"
        "<LastModified>2026-11-22T22:16:40Z</LastModified><Size>7</Size></Version></ListVersionsResult>"
    )
    page, _ = page_of(body)
    at = moment("2026-11-22T22:16:47Z")
    assert versions_of(page) == [
        StoredVersion("a", "2", 0, at, is_latest=True, is_delete_marker=True),
        StoredVersion("a", "1", 7, moment("2026-11-22T22:16:40Z"), is_latest=False, is_delete_marker=False),
    ]


def test_each_entry_is_read_by_its_own_fields() -> None:
    """A server may leave out or turn around the fields of one entry among others."""
    second = "<Contents><Size>4</Size><Key>b</Key><LastModified>2026-11-22T22:16:48Z</LastModified></Contents>"
    page, _ = page_of(listing(ENTRY.format(key="a", size=3), second, ENTRY.format(key="c", size=5)))
    assert objects_of(page) == [
        StoredObject("a", 3, moment("2026-11-22T22:16:47Z"), "9dd4e4"),
        StoredObject("b", 4, moment("2026-11-22T22:16:48Z")),
        StoredObject("c", 5, moment("2026-11-22T22:16:47Z"), "9dd4e4"),
    ]


@pytest.mark.parametrize(
    ("read", "tag", "expected"),
    [(objects_of, "Version", "Contents"), (versions_of, "Contents", "Version or DeleteMarker")],
)
def test_an_entry_of_another_kind_is_refused(
    read: Callable[[dict[str, Any]], list[object]], tag: str, expected: str
) -> None:
    """Objects where versions were asked for, or the other way round, prove nothing."""
    page, _ = page_of(listing(ENTRY.format(key="a", size=3).replace("Contents>", f"{tag}>")))
    with pytest.raises(ValueError, match=f"an entry 'a' of the kind '{tag}', expected {expected}$"):
        read(page)


@pytest.mark.parametrize(("field", "wrong"), [("Size", "many"), ("LastModified", "soon")])
def test_a_field_that_cannot_be_read_is_refused(field: str, wrong: str) -> None:
    """The message names the entry."""
    entry = re.sub(f"<{field}>[^<]*", f"<{field}>{wrong}", ENTRY.format(key="b", size=3))
    page, _ = page_of(listing(ENTRY.format(key="a", size=3), entry))
    with pytest.raises(ValueError, match="an entry 'b' that cannot be read: .*" + wrong):
        objects_of(page)


@pytest.mark.parametrize("field", ["Key", "Size", "LastModified"])
def test_an_entry_without_a_field_is_refused(field: str) -> None:
    """A page that cannot be read in full proves nothing, so it is an error, never a shorter page."""
    entry = ENTRY.format(key="a", size=3).replace(f"<{field}>", "<Other>").replace(f"</{field}>", "</Other>")
    page, _ = page_of(listing(entry))
    with pytest.raises(ValueError, match=f"without '{field}'"):
        objects_of(page)


def test_a_version_without_its_id_is_refused() -> None:
    """A delete without the id would hide the object and leave its bytes."""
    body = listing(ENTRY.format(key="a", size=3)).replace("Contents>", "Version>").replace("BucketRes", "VersionsRes")
    page, _ = page_of(body)
    with pytest.raises(ValueError, match="without 'VersionId'"):
        versions_of(page)


@pytest.mark.parametrize(
    ("body", "status"),
    [("<Error><Code>SlowDown</Code></Error>", 200), ("no XML", 200), (listing(ENTRY.format(key="a", size=1)), 503)],
)
def test_what_is_no_listing_is_left_to_botocore(body: str, status: int) -> None:
    """An error, a page of HTML or a failed answer stays as it came."""
    page, answer = page_of(body, status)
    assert ENTRIES not in page
    assert answer["body"] == body.encode()
