"""Keeps a store in a bucket on an S3 server: R2, B2, or any server that a profile describes."""

import base64
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

from wal_pipeline.errors import DamagedCopyError, ObjectMissingError, StoreAccessError, StoreUnavailableError
from wal_pipeline.stores.base import (
    Body,
    MultipartUpload,
    PutOutcome,
    Store,
    StoredObject,
    StoredVersion,
    UploadedPart,
    check_key,
    check_metadata,
)
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline.stores.s3.client import Connection, S3Client, SendBody
from wal_pipeline.stores.s3.errors import (
    NotImplementedByStoreError,
    PastEndError,
    PreconditionFailedError,
    UnprovenAbsenceError,
    UploadMissingError,
    locked_error,
)
from wal_pipeline.stores.s3.listing import S3Listing
from wal_pipeline.stores.s3.profiles import StoreProfile
from wal_pipeline.stores.s3.stream import S3Stream

# Longer than a put's last listing and deletion take; only a put that met another one waits.
_SETTLE_SECONDS: Final = 2.0
_CONTENT_TYPE: Final = "application/octet-stream"
_LARGEST_COPY_BYTES: Final = 5 << 30  # CopyObject takes no more
_DESCRIPTION: Final = ("ContentLength", "LastModified")


def open_s3_store(profile: StoreProfile, connection: Connection) -> "S3Store":
    """Return the store of one bucket. Makes no network call."""
    return S3Store(profile, S3Client(connection, RequestMeter()))


class S3Store(Store):
    """Keeps a store in one bucket. ``meter`` counts its requests."""

    def __init__(self, profile: StoreProfile, client: S3Client) -> None:
        self.name = profile.name
        self.profile = profile
        self.meter = client.meter
        self._client = client
        self._listing = S3Listing(client)
        # Becomes False for good where the server answers 501.
        self._conditional_put = profile.conditional_put
        # Becomes True for good where an answer shows that the bucket keeps versions all the same.
        self._keeps_versions = profile.keeps_versions

    def put_if_absent(self, key: str, body: Body, metadata: Mapping[str, str]) -> PutOutcome:
        """See ``Store``. Without conditional puts it looks, puts, and takes the put back where another came first."""
        check_key(self.name, key)
        kept = check_metadata(self.name, key, metadata)
        if self._conditional_put:
            try:
                return self._put_conditional(key, body, kept)
            except NotImplementedByStoreError:
                self._conditional_put = False
        return self._put_unconditional(key, body, kept)

    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """See ``Store``."""
        stream = S3Stream(self._client, check_key(self.name, key), start)
        return closing(cast(BinaryIO, stream))

    @contextmanager
    def open_described(self, key: str) -> Iterator[tuple[StoredObject, BinaryIO]]:
        """See ``Store``. A GET's answer describes the object as a HEAD's does."""
        with closing(S3Stream(self._client, check_key(self.name, key), needs=_DESCRIPTION)) as stream:
            yield _described(key, stream.answer), cast(BinaryIO, stream)

    def head(self, key: str) -> StoredObject | None:
        """See ``Store``. A HEAD's answer has no body that says what is missing, so a GET must prove absence."""
        check_key(self.name, key)
        try:
            return self._head(key)
        except UnprovenAbsenceError:
            return self._head(key) if self._proves_presence(key) else None

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        """See ``Store``."""
        return self._listing.objects(prefix, start_after)

    def delete(self, key: str) -> int:
        """See ``Store``."""
        check_key(self.name, key)
        return self._delete_versions(key) if self._keeps_versions else self._delete_plain(key)

    @property
    def keeps_versions(self) -> bool:
        """See ``Store``."""
        return self._keeps_versions

    def versions(self, prefix: str, *, start_after: str = "") -> Iterator[StoredVersion]:
        """See ``Store``."""
        if self._keeps_versions:
            return self._listing.versions(prefix, start_after)
        return (
            StoredVersion(
                found.key, "null", found.size_bytes, found.modified_at, is_latest=True, is_delete_marker=False
            )
            for found in self._listing.objects(prefix, start_after)
        )

    def begin_upload(self, key: str, metadata: Mapping[str, str]) -> MultipartUpload:
        """See ``Store``."""
        check_key(self.name, key)
        answer = self._client.call(
            "create_multipart_upload",
            f"begin the upload of object '{key}'",
            key=key,
            needs=("UploadId",),
            Metadata=check_metadata(self.name, key, metadata),
            ContentType=_CONTENT_TYPE,
        )
        return MultipartUpload(key, answer["UploadId"], datetime.now(UTC))

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> UploadedPart:
        """See ``Store``."""
        action = f"put part {number} of object '{upload.key}'"
        answer = self._send("upload_part", action, upload.key, body, PartNumber=number, UploadId=upload.upload_id)
        etag = _etag(answer)
        if etag != body.md5.hex():
            raise DamagedCopyError(
                self.name,
                f"part {number} of object '{upload.key}' has checksum '{etag}', expected '{body.md5.hex()}'",
            )
        return UploadedPart(number, etag, body.size_bytes, body.md5)

    def complete_upload(self, upload: MultipartUpload, parts: tuple[UploadedPart, ...]) -> PutOutcome:
        """See ``Store``. Compares the object's size afterwards; its ETag is no digest of the bytes."""
        try:
            self._complete(upload, parts)
        except PreconditionFailedError:
            self.abort_upload(upload)
            return PutOutcome.EXISTS
        except UploadMissingError:
            # An earlier try whose answer was lost may have completed it; the caller compares.
            if self.head(upload.key) is not None:
                return PutOutcome.EXISTS
            raise
        self._check_size(upload.key, sum(part.size_bytes for part in parts))
        return PutOutcome.CREATED

    def abort_upload(self, upload: MultipartUpload) -> None:
        """See ``Store``."""
        action = f"abort the upload of object '{upload.key}'"
        try:
            self._client.call("abort_multipart_upload", action, key=upload.key, UploadId=upload.upload_id)
        except UploadMissingError:
            return

    def uploads(self, prefix: str) -> Iterator[MultipartUpload]:
        """See ``Store``."""
        return self._listing.uploads(prefix)

    def copy(self, source_key: str, key: str, metadata: Mapping[str, str]) -> PutOutcome:
        """See ``Store``. The server copies; where it cannot (an object of more than 5 GiB), the bytes come here."""
        check_key(self.name, key)
        source = {"Bucket": self._client.connection.bucket, "Key": check_key(self.name, source_key)}
        kept = check_metadata(self.name, key, metadata)
        described = self.head(source_key)
        if described is None:
            raise ObjectMissingError(self.name, f"object '{source_key}' does not exist")
        if described.size_bytes > _LARGEST_COPY_BYTES:
            return super().copy(source_key, key, metadata)
        if self._exists(key):
            return PutOutcome.EXISTS
        action = f"copy object '{source_key}' to '{key}'"
        self._client.call(
            "copy_object",
            action,
            key=key,
            CopySource=source,
            MetadataDirective="REPLACE",
            Metadata=kept,
            ContentType=_CONTENT_TYPE,
        )
        self._check_size(key, described.size_bytes)
        return PutOutcome.CREATED

    def check_access(self) -> None:
        """See ``Store``."""
        self._client.call("list_objects_v2", "list objects", needs=("Name",), MaxKeys=1)

    def _put_conditional(self, key: str, body: Body, metadata: dict[str, str]) -> PutOutcome:
        try:
            answer = self._put(key, body, metadata, IfNoneMatch="*")
        except PreconditionFailedError:
            return PutOutcome.EXISTS
        self._confirm(key, body, answer)
        return PutOutcome.CREATED

    def _put_unconditional(self, key: str, body: Body, metadata: dict[str, str]) -> PutOutcome:
        if self._exists(key):
            return PutOutcome.EXISTS
        answer = self._put(key, body, metadata)
        self._confirm(key, body, answer)
        mine = answer.get("VersionId")
        if mine is None or not self.profile.keeps_versions:
            return PutOutcome.CREATED
        return self._settle(key, mine)

    def _settle(self, key: str, mine: str) -> PutOutcome:
        """Agree with others that put the same key at the same moment: all but one take their version back.

        The younger ones do so at once, and the oldest waits for that. A rival that is still there then looked before
        the oldest was visible, and counts as created. Versions are dated when a put begins, not when it ends.
        """
        present = self._present_versions(key)
        if present[-1:] == [mine]:
            if len(present) == 1:
                return PutOutcome.CREATED
            time.sleep(_SETTLE_SECONDS)
            if self._present_versions(key) == [mine]:
                return PutOutcome.CREATED
        self._delete_version(key, mine)
        return PutOutcome.EXISTS

    def _present_versions(self, key: str) -> Sequence[str]:
        """Return the ids of the versions that no delete marker hides, the newest first."""
        shown = itertools.takewhile(lambda version: not version.is_delete_marker, self._versions_of(key))
        return [version.version_id for version in shown]

    def _put(self, key: str, body: Body, metadata: dict[str, str], **conditions: str) -> dict[str, Any]:
        action = f"put object '{key}'"
        return self._send("put_object", action, key, body, Metadata=metadata, ContentType=_CONTENT_TYPE, **conditions)

    def _send(self, operation: str, action: str, key: str, body: Body, **parameters: Any) -> dict[str, Any]:
        md5 = base64.b64encode(body.md5).decode()
        answer = self._client.call(
            operation, action, key=key, Body=SendBody(body, self._client.pace), ContentMD5=md5, **parameters
        )
        self.meter.add_bytes(sent=body.size_bytes)
        return answer

    def _confirm(self, key: str, body: Body, answer: Mapping[str, Any]) -> None:
        """Compare the answer to a put with the bytes sent; where they differ, look at the stored object."""
        expected, answered = body.md5.hex(), _etag(answer)
        if answered == expected:
            return
        stored = self.head(key)
        if stored is None:
            raise StoreUnavailableError(
                self.name, f"object '{key}' is absent after the store answered its put with 200"
            )
        if stored.etag == expected:
            return
        self._take_back(key, stored, answer)
        raise DamagedCopyError(self.name, f"object '{key}' has checksum '{stored.etag}', expected '{expected}'")

    def _take_back(self, key: str, stored: StoredObject, answer: Mapping[str, Any]) -> None:
        """Remove the damaged object that our put made; never one that may be another's."""
        version_id = answer.get("VersionId")
        if version_id is not None and self.profile.keeps_versions:
            self._delete_version(key, version_id)
        elif self._conditional_put and stored.etag == _etag(answer) != "":
            self._delete_plain(key)

    def _complete(self, upload: MultipartUpload, parts: tuple[UploadedPart, ...]) -> None:
        action = f"complete the upload of object '{upload.key}'"
        listed = {"Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]}
        arguments: dict[str, Any] = {"key": upload.key, "UploadId": upload.upload_id, "MultipartUpload": listed}
        if self._conditional_put:
            try:
                self._client.call("complete_multipart_upload", action, IfNoneMatch="*", **arguments)
            except NotImplementedByStoreError:
                self._conditional_put = False
            else:
                return
        if self._exists(upload.key):
            raise PreconditionFailedError(self.name, f"object '{upload.key}' exists already")
        self._client.call("complete_multipart_upload", action, **arguments)

    def _check_size(self, key: str, expected: int) -> None:
        stored = self.head(key)
        if stored is None:
            raise StoreUnavailableError(self.name, f"object '{key}' is absent after its upload was completed")
        if stored.size_bytes != expected:
            raise DamagedCopyError(self.name, f"object '{key}' has {stored.size_bytes} bytes, expected {expected}")

    def _head(self, key: str) -> StoredObject | None:
        try:
            answer = self._client.call("head_object", f"look at object '{key}'", key=key, needs=_DESCRIPTION)
        except ObjectMissingError:
            return None
        return _described(key, answer)

    def _exists(self, key: str) -> bool:
        """Say whether an object exists; the put that follows reports it if the bucket is missing."""
        try:
            return self._head(key) is not None
        except UnprovenAbsenceError:
            return False

    def _proves_presence(self, key: str) -> bool:
        """Return False only where the server says explicitly that the key does not exist."""
        try:
            self._client.call("get_object", f"look at object '{key}'", key=key, Range="bytes=0-0")["Body"].close()
        except ObjectMissingError:
            return False
        except PastEndError:  # an empty object
            return True
        return True

    def _versions_of(self, key: str) -> Iterator[StoredVersion]:
        """Yield the versions of one key, the newest first."""
        for version in self._listing.versions(key):
            if version.key != key:
                return
            yield version

    def _delete_plain(self, key: str) -> int:
        if self.head(key) is None:
            return 0
        answer = self._client.call("delete_object", f"delete object '{key}'", key=key)
        if not answer.get("DeleteMarker"):
            return 1
        # The bucket keeps versions though its provider does not: that only hid the bytes, which are billed and may be
        # locked. The marker goes last, so that what a lock holds stays hidden.
        self._keeps_versions = True
        return self._delete_versions(key, markers_last=True)

    def _delete_versions(self, key: str, *, markers_last: bool = False) -> int:
        """Remove all versions of a key, the newest first, and return how many."""
        versions = list(self._versions_of(key))
        if markers_last:
            versions.sort(key=lambda version: version.is_delete_marker)
        for version in versions:
            self._delete_version(key, version.version_id)
        return len(versions)

    def _delete_version(self, key: str, version_id: str) -> None:
        try:
            self._client.call("delete_object", f"delete object '{key}'", key=key, VersionId=version_id)
        except ObjectMissingError:
            return
        except StoreAccessError:
            self._raise_where_locked(key, version_id)
            raise

    def _raise_where_locked(self, key: str, version_id: str) -> None:
        """Find out whether a lock, not missing rights, refused a deletion. Raises: ObjectLockedError."""
        answer = self._client.call("head_object", f"look at object '{key}'", key=key, VersionId=version_id)
        if answer.get("ObjectLockLegalHoldStatus") == "ON":
            raise locked_error(self.name, key, "it is under a legal hold")
        until: datetime | None = answer.get("ObjectLockRetainUntilDate")
        if until is not None and until > datetime.now(UTC):
            raise locked_error(self.name, key, f"until {until:%Y-%m-%d %H:%M:%S} UTC")


def _described(key: str, answer: Mapping[str, Any]) -> StoredObject:
    metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
    return StoredObject(key, answer["ContentLength"], answer["LastModified"], _etag(answer), metadata)


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"').lower()
