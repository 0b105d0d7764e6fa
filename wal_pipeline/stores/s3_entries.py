"""The entries of a listing, taken out of the answer before botocore reads it, which takes it eight times as long.

An archive of years has hundreds of pages of a thousand entries; what is left of a page, botocore reads as ever.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree

ENTRIES: Final = "WalPipelineEntries"
_ROOTS: Final = frozenset({"ListBucketResult", "ListVersionsResult"})
_TAGS: Final = frozenset({"Contents", "Version", "DeleteMarker"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, version or delete marker as a page lists it. ``version_id`` is empty for an object."""

    key: str
    version_id: str
    size_bytes: int
    modified_at: datetime
    etag: str
    is_latest: bool
    is_delete_marker: bool


def take_entries(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_event: Any) -> None:
    """Move a page's entries, in its order, from its body to ``ENTRIES`` of what botocore will return.

    An answer that is no listing is left as it is: botocore knows what to say of it.
    """
    try:
        root = ElementTree.fromstring(response_dict["body"])  # noqa: S314 - botocore reads it with the same parser
    except ElementTree.ParseError:
        return
    if response_dict["status_code"] != 200 or _local(root.tag) not in _ROOTS:
        return
    children = list(root)
    entries = [child for child in children if _local(child.tag) in _TAGS]
    by_url = any(_local(child.tag) == "EncodingType" and child.text == "url" for child in children)
    customized_response_dict[ENTRIES] = [_fields(entry) for entry in entries], by_url
    for entry in entries:
        root.remove(entry)
    response_dict["body"] = ElementTree.tostring(root)


def entries_of(page: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the entries of a page, in its order. Raises: ValueError where one is not S3's."""
    entries, by_url = page[ENTRIES]
    for tag, fields in entries:
        try:
            yield _entry(tag, fields, by_url=by_url)
        except (KeyError, ValueError) as error:
            raise ValueError(f"an entry '{fields.get('Key', '')}' without a right {error}") from error


def moment(text: str) -> datetime:
    """Read a time of an answer as UTC. With the parser that boto3 brings, a listing takes two thirds longer.

    Raises: ValueError.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = parsedate_to_datetime(text)
    return found.astimezone(UTC)


def _entry(tag: str, fields: Mapping[str, str], *, by_url: bool) -> Entry:
    key = fields["Key"]
    return Entry(
        key=unquote_plus(key) if by_url else key,
        version_id="" if tag == "Contents" else fields["VersionId"],
        size_bytes=0 if tag == "DeleteMarker" else int(fields["Size"]),
        modified_at=moment(fields["LastModified"]),
        etag=fields.get("ETag", "").strip('"').lower(),
        is_latest=fields.get("IsLatest") == "true",
        is_delete_marker=tag == "DeleteMarker",
    )


def _fields(entry: ElementTree.Element) -> tuple[str, dict[str, str]]:
    return _local(entry.tag), {_local(field.tag): field.text or "" for field in entry}


def _local(tag: str) -> str:
    """Return a tag without its namespace, which some servers leave out."""
    return tag.rpartition("}")[2]
