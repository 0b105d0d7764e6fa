"""Takes the entries of a listing out of the answer before botocore reads it, which takes ten times as long.

An old archive has hundreds of pages of a thousand entries. botocore reads the rest of each page as usual.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from wal_pipeline.stores.base import StoredObject, StoredVersion

ENTRIES: Final = "WalPipelineEntries"
_ROOTS: Final = frozenset({"ListBucketResult", "ListVersionsResult"})
_TAGS: Final = frozenset({"Contents", "Version", "DeleteMarker"})
_FIELDS: Final = ("Key", "LastModified", "Size", "ETag", "VersionId", "IsLatest")
_OBJECTS: Final = {"Contents": ("Key", "LastModified", "Size")}
_VERSIONS: Final = {
    "Version": ("Key", "LastModified", "Size", "VersionId"),
    "DeleteMarker": ("Key", "LastModified", "VersionId"),
}
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


def take_entries(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_event: Any) -> None:
    """Move a page's entries, in its order, from its body to ``ENTRIES`` in the result that botocore returns.

    An answer that is no listing stays as it is: botocore reports it.
    """
    try:
        root = ElementTree.fromstring(response_dict["body"])  # noqa: S314 - botocore reads it with the same parser
    except ElementTree.ParseError:
        return
    if response_dict["status_code"] != 200 or _local(root.tag) not in _ROOTS:
        return
    entries: list[ElementTree.Element] = []
    others: list[ElementTree.Element] = []
    for child in root:
        (entries if _local(child.tag) in _TAGS else others).append(child)
    by_url = any(_local(child.tag) == "EncodingType" and child.text == "url" for child in others)
    customized_response_dict[ENTRIES] = entries, by_url
    root[:] = others
    response_dict["body"] = ElementTree.tostring(root)


def objects_of(page: Mapping[str, Any]) -> list[StoredObject]:
    """Return the objects of a page, in its order. Raises: ValueError where an entry is not S3's."""
    entries, by_url = page[ENTRIES]
    found = []
    for _, (key, modified_at, size_bytes, etag, _, _) in _texts(entries, _OBJECTS):
        name = unquote_plus(key) if by_url else key
        try:
            one = StoredObject(name, int(size_bytes), moment(modified_at), etag.strip('"').lower(), _NO_METADATA)
        except ValueError as error:
            raise _wrong(key, f"that cannot be read: {error}") from error
        found.append(one)
    return found


def versions_of(page: Mapping[str, Any]) -> list[StoredVersion]:
    """Return the versions and delete markers of a page, in its order. Raises: ValueError where one is not S3's."""
    entries, by_url = page[ENTRIES]
    found = []
    for tag, (key, modified_at, size_bytes, _, version_id, is_latest) in _texts(entries, _VERSIONS):
        name, is_marker = unquote_plus(key) if by_url else key, tag == "DeleteMarker"
        size = "0" if is_marker else size_bytes
        try:
            one = StoredVersion(name, version_id, int(size), moment(modified_at), is_latest == "true", is_marker)
        except ValueError as error:
            raise _wrong(key, f"that cannot be read: {error}") from error
        found.append(one)
    return found


def moment(text: str) -> datetime:
    """Read a time in an answer as UTC. With boto3's own parser, a listing takes two thirds longer.

    Raises: ValueError.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = parsedate_to_datetime(text)
    return found.astimezone(UTC)


def _texts(
    entries: Iterable[ElementTree.Element], needed: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each entry's tag and the texts of ``_FIELDS``; a server's entries mostly have the same fields in one order.

    ``needed`` are the fields that each tag must have. Raises: ValueError.
    """
    shapes: dict[tuple[str, ...], tuple[str, list[int]]] = {}
    for entry in entries:
        shape = (entry.tag, *[field.tag for field in entry])
        if shape not in shapes:
            shapes[shape] = _shape(entry, needed)
        tag, places = shapes[shape]
        yield tag, [(entry[place].text or "") if place >= 0 else "" for place in places]


def _shape(entry: ElementTree.Element, needed: Mapping[str, Collection[str]]) -> tuple[str, list[int]]:
    """Return the entry's tag and the index of each of ``_FIELDS`` in it; -1 for a missing one."""
    tag = _local(entry.tag)
    places = {_local(field.tag): place for place, field in enumerate(entry)}
    key = entry[places["Key"]].text if "Key" in places else ""
    if tag not in needed:
        raise _wrong(key, f"of the kind '{tag}', expected {' or '.join(needed)}")
    missing = [name for name in needed[tag] if name not in places]
    if missing:
        raise _wrong(key, f"without '{missing[0]}'")
    return tag, [places.get(name, -1) for name in _FIELDS]


def _wrong(key: str | None, fault: str) -> ValueError:
    return ValueError(f"an entry '{key or ''}' {fault}")


def _local(tag: str) -> str:
    """Return a tag without its namespace, which some servers leave out."""
    return tag.rpartition("}")[2]
