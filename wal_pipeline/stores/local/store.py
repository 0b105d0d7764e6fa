"""Keeps a store in a local folder: for a mounted disk, a test, or a first try without a provider.

``objects/<key>`` holds the bytes, ``metadata/<key>.json`` their metadata and ETag, ``uploads/`` the unfinished uploads.
"""

import errno
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from wal_pipeline.errors import (
    BucketMissingError,
    DamagedCopyError,
    ObjectMissingError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    cause_hint,
)
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
from wal_pipeline.stores.local.folder_tree import FolderTree
from wal_pipeline.stores.local.stream import LocalStream

_SIDECAR_SUFFIX: Final = ".json"
_FOLDERS: Final = ("metadata", "uploads", "temporary", "objects")


class LocalFolderStore(Store):
    """Keeps objects as files below one folder, which ``prepare`` makes a store once.

    A folder that is absent or not prepared is an error and never an empty store: it may be a disk that is not mounted.
    A folder cannot hold a key beside another one below it (``a`` and ``a/b``): the second one is refused.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._objects = FolderTree(folder / "objects")
        self._metadata = FolderTree(folder / "metadata")

    def prepare(self) -> None:
        """Make the existing folder a store; no change where it is one already. Raises: BucketMissingError."""
        self._check(self._folder)
        with self._translating("prepare the store"):
            for name in _FOLDERS:
                (self._folder / name).mkdir(exist_ok=True)

    def put_if_absent(self, key: str, body: Body, metadata: Mapping[str, str]) -> PutOutcome:
        """See ``Store``."""
        check_key(self.name, key)
        kept = check_metadata(self.name, key, metadata)
        with self._translating(f"put object '{key}'"):
            self._check_digests(f"object '{key}'", body)
            with self._temporary() as (path, file):
                file.write(body.data)
                return self._publish(key, path, file, body.md5.hex(), kept)

    @contextmanager
    def open(self, key: str, *, start: int = 0) -> Iterator[BinaryIO]:
        """See ``Store``."""
        check_key(self.name, key)
        with self._translating(f"read object '{key}'"):
            self._check(self._objects.root)
            descriptor = self._objects.open(key)
        if descriptor is None:
            raise ObjectMissingError(self.name, f"object '{key}' does not exist")
        with os.fdopen(descriptor, "rb") as file:
            file.seek(start)
            yield cast(BinaryIO, LocalStream(file, lambda error: self._error_of(f"read object '{key}'", error)))

    def head(self, key: str) -> StoredObject | None:
        """See ``Store``."""
        check_key(self.name, key)
        with self._translating(f"look at object '{key}'"):
            self._check(self._objects.root)
            while (status := self._objects.status(key)) is not None:
                try:
                    sidecar = self._sidecar(key)
                except DamagedCopyError:
                    # A delete removes the object first and then its metadata, and another put may follow meanwhile.
                    if _is_same_file(self._objects.status(key), status):
                        raise
                else:
                    modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                    return StoredObject(key, status.st_size, modified_at, sidecar["etag"], sidecar["metadata"])
            return None

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        """See ``Store``. The ETag is left out: it would cost a file per object."""
        with self._translating(f"list '{prefix}'"):
            self._check(self._objects.root)
            for key, status in self._objects.walk(prefix, start_after):
                yield StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def delete(self, key: str) -> int:
        """See ``Store``."""
        check_key(self.name, key)
        with self._translating(f"delete object '{key}'"), self._locked():
            removed = self._objects.remove(key)
            self._metadata.remove(key + _SIDECAR_SUFFIX)
            return int(removed)

    @property
    def keeps_versions(self) -> bool:
        """See ``Store``."""
        return False

    def versions(self, prefix: str, *, start_after: str = "") -> Iterator[StoredVersion]:
        """See ``Store``."""
        for found in self.list(prefix, start_after=start_after):
            yield StoredVersion(
                found.key, "null", found.size_bytes, found.modified_at, is_latest=True, is_delete_marker=False
            )

    def begin_upload(self, key: str, metadata: Mapping[str, str]) -> MultipartUpload:
        """See ``Store``."""
        check_key(self.name, key)
        kept = check_metadata(self.name, key, metadata)
        upload = MultipartUpload(key, uuid.uuid4().hex, datetime.now(UTC))
        with self._translating(f"begin the upload of object '{key}'"):
            self._check(self._objects.root)
            about = {"key": key, "begun_at": upload.begun_at.isoformat(), "metadata": kept}
            folder = self._uploads / upload.upload_id
            folder.mkdir(parents=True)
            _write_durably(folder / "upload.json", json.dumps(about).encode())
        return upload

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> UploadedPart:
        """See ``Store``."""
        with self._translating(f"put part {number} of object '{upload.key}'"):
            self._check_digests(f"part {number} of object '{upload.key}'", body)
            _write_durably(self._upload_folder(upload) / f"{number:05d}.part", body.data)
        return UploadedPart(number, body.md5.hex(), body.size_bytes, body.md5)

    def complete_upload(self, upload: MultipartUpload, parts: tuple[UploadedPart, ...]) -> PutOutcome:
        """See ``Store``."""
        with self._translating(f"complete the upload of object '{upload.key}'"):
            folder = self._upload_folder(upload)
            about = json.loads((folder / "upload.json").read_bytes())
            with self._temporary() as (path, file):
                etag = _join(folder, parts, file)
                found, expected = file.tell(), sum(part.size_bytes for part in parts)
                if found != expected:
                    message = f"the parts of object '{upload.key}' have {found} bytes, expected {expected}"
                    raise DamagedCopyError(self.name, message)
                outcome = self._publish(upload.key, path, file, etag, about["metadata"])
        self.abort_upload(upload)
        return outcome

    def abort_upload(self, upload: MultipartUpload) -> None:
        """See ``Store``."""
        with self._translating(f"abort the upload of object '{upload.key}'"), suppress(FileNotFoundError):
            shutil.rmtree(self._uploads / self._plain(upload))

    def uploads(self, prefix: str) -> Iterator[MultipartUpload]:
        """See ``Store``."""
        with self._translating(f"list the uploads below '{prefix}'"):
            self._check(self._objects.root)
            found = []
            for path in self._upload_files():
                with suppress(FileNotFoundError):  # completed or aborted meanwhile
                    found.append(json.loads(path.read_bytes()) | {"id": path.parent.name})
        for about in sorted(found, key=lambda about: about["key"].encode()):
            if about["key"].startswith(prefix):
                yield MultipartUpload(about["key"], about["id"], datetime.fromisoformat(about["begun_at"]))

    def check_access(self) -> None:
        """See ``Store``."""
        with self._translating("write"), self._temporary() as (_, file):
            file.flush()

    @property
    def _uploads(self) -> Path:
        return self._folder / "uploads"

    def _upload_files(self) -> Iterator[Path]:
        return self._uploads.glob("*/upload.json")

    def _upload_folder(self, upload: MultipartUpload) -> Path:
        folder = self._uploads / self._plain(upload)
        if not folder.is_dir():
            raise self._upload_missing(upload)
        return folder

    def _plain(self, upload: MultipartUpload) -> str:
        """Return the upload's id where it is a UUID, as ours are, so that it never leads to another folder."""
        try:
            return uuid.UUID(hex=upload.upload_id).hex
        except ValueError:
            raise self._upload_missing(upload) from None

    def _upload_missing(self, upload: MultipartUpload) -> StoreError:
        return StoreError(self.name, f"the upload of object '{upload.key}' is not known any more")

    def _check(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BucketMissingError(
                self.name,
                f"folder '{folder}' does not exist",
                hint=f"Mount the disk. Only where this is a new store, make it: mkdir -p {self._folders_as_words()}",
            )

    def _folders_as_words(self) -> str:
        return " ".join(shlex.quote(str(self._folder / name)) for name in _FOLDERS)

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Give a temporary file on the same file system; a link to it keeps its content."""
        self._check(self._objects.root)
        path = self._folder / "temporary" / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _publish(self, key: str, path: Path, file: BinaryIO, etag: str, metadata: dict[str, str]) -> PutOutcome:
        """Make a whole file the object of a key: metadata first, because the object exists once it has its name."""
        _sync(file)
        with self._locked():
            if self._objects.status(key) is not None:
                return PutOutcome.EXISTS
            sidecar = {"etag": etag, "metadata": metadata}
            with self._temporary() as (sidecar_path, sidecar_file):
                sidecar_file.write(json.dumps(sidecar).encode())
                _sync(sidecar_file)
                self._metadata.remove(key + _SIDECAR_SUFFIX)  # left by a crash before the object had its name
                self._metadata.link(sidecar_path, key + _SIDECAR_SUFFIX)
            self._objects.link(path, key)
        return PutOutcome.CREATED

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out every other thread and process that changes this folder."""
        self._check(self._objects.root)
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sidecar(self, key: str) -> dict[str, Any]:
        descriptor = self._metadata.open(key + _SIDECAR_SUFFIX)
        if descriptor is None:
            raise DamagedCopyError(self.name, f"object '{key}' has lost its metadata")
        with os.fdopen(descriptor, "rb") as file:
            return cast(dict[str, Any], json.load(file))

    def _check_digests(self, what: str, body: Body) -> None:
        found = Body.of(body.data)
        if (found.md5, found.sha256) != (body.md5, body.sha256):
            raise DamagedCopyError(self.name, f"{what} has SHA-256 '{found.sha256}', expected '{body.sha256}'")

    @contextmanager
    def _translating(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error_of(action, error) from error

    def _error_of(self, action: str, error: OSError) -> StoreError:
        text = f"cannot {action} in '{self._folder}': {error.strerror or error}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StoreAccessError(self.name, text, hint=cause_hint(error) or "Check the folder's owner and mode.")
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST):
            return StoreError(self.name, text, hint="The key does not fit into this folder's tree of files.")
        hint = cause_hint(error) or "Check the disk: its space, its mount and its health."
        return StoreUnavailableError(self.name, text, hint=hint)


def _is_same_file(now: os.stat_result | None, before: os.stat_result) -> bool:
    return now is not None and (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def _join(folder: Path, parts: tuple[UploadedPart, ...], file: BinaryIO) -> str:
    """Join the parts to one file, and return the ETag that S3 gives such an object."""
    for part in parts:
        with (folder / f"{part.number:05d}.part").open("rb") as source:
            shutil.copyfileobj(source, file, 1024 * 1024)
    digests = b"".join(part.md5 for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _write_durably(path: Path, data: bytes | memoryview) -> None:
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        file.write(data)
        _sync(file)
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
