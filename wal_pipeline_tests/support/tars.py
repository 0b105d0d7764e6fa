"""Makes tars for tests, honest and hostile ones."""

import hashlib
import io
import tarfile
from collections.abc import Callable

from wal_pipeline.archive.format.base_backup.manifest import (
    BackupObject,
    BackupTablespace,
    BackupTar,
    BaseBackupManifest,
    backup_manifest_name,
    volume_name,
)
from wal_pipeline.archive.records import Codec
from wal_pipeline_tests.support.manifests import make_manifest


def volume(name: str) -> str:
    return volume_name(name, 0, Codec.NONE, encrypted=False)


def described(name: str, data: bytes) -> BackupObject:
    return BackupObject(name, len(data), hashlib.sha256(data).hexdigest(), len(data))


def forge(tars: dict[str, bytes]) -> BaseBackupManifest:
    """Return a manifest that describes these tars."""
    return make_manifest(
        codec=Codec.NONE,
        tablespaces=tuple(BackupTablespace(int(name), "/srv/space") for name in tars if name != "base"),
        volume_size_bytes=1 << 30,
        backup_manifest=described(backup_manifest_name(Codec.NONE, encrypted=False), b"{}"),
        tars=tuple(
            BackupTar(name, len(data), hashlib.sha256(data).hexdigest(), (described(volume(name), data),))
            for name, data in tars.items()
        ),
    )


def member(name: str, kind: bytes = tarfile.REGTYPE, *, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, to, 0o755
    info.size = 4 if kind == tarfile.REGTYPE else 0
    info.devmajor, info.devminor = 1, 3
    return info


Sink = Callable[[bytes], object]


def make_tar(*members: tuple[str, bytes | None, int]) -> bytes:
    """Return a tar of files (name, content, mode) and folders (content None)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, mode in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def produced(data: bytes) -> Callable[[Sink], None]:
    """Return a producer of these bytes, in small pieces."""

    def produce(sink: Sink) -> None:
        for start in range(0, len(data), 1000):
            sink(data[start : start + 1000])

    return produce
