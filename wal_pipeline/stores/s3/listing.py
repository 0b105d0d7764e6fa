"""Lists a bucket page by page: objects, versions and unfinished uploads, in ascending order of keys."""

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, TypeVar

from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.base import MultipartUpload, StoredObject, StoredVersion
from wal_pipeline.stores.s3.client import S3Client
from wal_pipeline.stores.s3.listing_parser import objects_of, versions_of

_PAGE: Final = 1000
_BY_KEY: Final = attrgetter("key")  # the order of code points is the order of their UTF-8 bytes
_Listed = TypeVar("_Listed", StoredObject, StoredVersion)


class S3Listing:
    """Reads listings of one bucket. A page that is not a whole, ordered listing is an error, never an empty list."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def objects(self, prefix: str, start_after: str) -> Iterator[StoredObject]:
        """Yield the objects below ``prefix`` after ``start_after``."""
        position = {"StartAfter": start_after} if start_after else {}
        last = start_after
        while True:
            page = self._page("list_objects_v2", "Name", prefix, MaxKeys=_PAGE, **position)
            for found in _sorted_after(self._entries(prefix, page, objects_of), start_after):
                if found.key <= last:
                    raise self._out_of_order(prefix, last, found.key)
                last = found.key
                yield found
            if not page["IsTruncated"]:
                return
            # Every server knows a request by token alone; the order of keys catches a token that leads back.
            position = self._moved(prefix, position, {"ContinuationToken": page.get("NextContinuationToken", "")})

    def versions(self, prefix: str, start_after: str = "") -> Iterator[StoredVersion]:
        """Yield versions and delete markers below ``prefix`` after ``start_after``, each key's newest first."""
        position = {"KeyMarker": start_after} if start_after else {}
        last = start_after
        while True:
            page = self._page("list_object_versions", "Name", prefix, MaxKeys=_PAGE, **position)
            for found in _sorted_after(self._entries(prefix, page, versions_of), start_after):
                if found.key < last:
                    raise self._out_of_order(prefix, last, found.key)
                last = found.key
                yield found
            if not page["IsTruncated"]:
                return
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "VersionIdMarker": page.get("NextVersionIdMarker", ""),
            }
            position = self._moved(prefix, position, {name: value for name, value in following.items() if value})

    def uploads(self, prefix: str) -> Iterator[MultipartUpload]:
        """Yield the unfinished uploads below ``prefix``."""
        position: dict[str, str] = {}
        while True:
            page = self._page("list_multipart_uploads", "Bucket", prefix, MaxUploads=_PAGE, **position)
            for entry in page.get("Uploads", ()):
                yield MultipartUpload(entry["Key"], entry["UploadId"], entry["Initiated"])
            if not page.get("IsTruncated", False):
                return
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            position = self._moved(prefix, position, {name: value for name, value in following.items() if value})

    def _page(self, operation: str, bucket_field: str, prefix: str, **parameters: Any) -> dict[str, Any]:
        page = self._client.call(operation, f"list '{prefix}'", Prefix=prefix, **parameters)
        to = self._client.connection
        # Any XML parses as an empty page, which would prove that every object is absent.
        if page.get(bucket_field) != to.bucket or (operation != "list_multipart_uploads" and "IsTruncated" not in page):
            raise StoreUnavailableError(
                to.store, f"cannot list '{prefix}': '{to.endpoint_url}' answered without a listing of '{to.bucket}'"
            )
        return page

    def _entries(
        self, prefix: str, page: Mapping[str, Any], read: Callable[[Mapping[str, Any]], list[_Listed]]
    ) -> list[_Listed]:
        try:
            return read(page)
        except ValueError as error:
            to = self._client.connection
            raise StoreUnavailableError(
                to.store, f"cannot list '{prefix}': '{to.endpoint_url}' answered with {error}"
            ) from error

    def _out_of_order(self, prefix: str, last: str, key: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            self._client.connection.store,
            f"cannot list '{prefix}': '{key}' came after '{last}', expected ascending keys",
        )

    def _moved(self, prefix: str, before: Mapping[str, str], after: dict[str, str]) -> dict[str, str]:
        if after == before or not any(after.values()):
            raise StoreUnavailableError(
                self._client.connection.store, f"cannot list '{prefix}': the store gave the same page twice"
            )
        return after


def _sorted_after(listed: list[_Listed], start_after: str) -> list[_Listed]:
    """Return the entries after ``start_after``, sorted by key: SeaweedFS sorts a page by its own folders.

    The versions of one key stay in their order, which alone shows the newest.
    """
    return sorted((one for one in listed if one.key > start_after), key=_BY_KEY)
