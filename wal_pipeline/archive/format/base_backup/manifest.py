"""Describes a base backup's manifest: its objects in the store, how to open them, and the WAL that a restore needs.

All objects of one base backup lie below ``Layout.base_root/<backup id>/``. The two methods store its files in two ways.

Version 2: the method ``local``
-------------------------------
``files.000000.tar<codec>[.age]``, ``files.000001.tar<codec>[.age]``, ...
    **Volumes**. Each is a whole small tar of its own, compressed and encrypted by itself: standard tools open any of
    them alone, in any order, at the same time. Their names are relative to the data directory, tablespaces lie below
    ``pg_tblspc/<oid>/``. A file larger than a volume lies in several, in parts whose names say where they belong
    (parts.py)::

        for volume in files.*.tar.zst; do zstd -dc "$volume" | tar -x; done
        find . -name '*.wal-pipeline-part.000000000000000' | while read -r first; do
          file=${first%.wal-pipeline-part.*}
          cat "$file".wal-pipeline-part.* > "$file" && rm "$file".wal-pipeline-part.*
        done

    The last one holds the empty folders, PostgreSQL's ``backup_label``, ``tablespace_map``, ``global/pg_control`` and
    ``backup_manifest``.
``file_index<codec>[.age]``
    Which file lies in which volume (file_index.py).
``volumes`` of ``manifest.json``
    All volumes that the base backup is restored from. A volume with a ``backup_id`` is one of an earlier base backup:
    its files have not changed since. ``chain`` names all base backups whose volumes it refers to, the oldest first;
    nothing is combined. An older volume may also hold files that changed or went since: its own volumes come last in
    the list, so that opening all in its order leaves each file right. What ``backup_manifest`` does not name must go.

``backup_manifest``, ``configuration.tar``, ``report.json`` and ``manifest.json`` are as in version 1.

Version 1: the method ``remote``
--------------------------------

``base.000000.tar<codec>[.age]``, ``base.000001.tar<codec>[.age]``, ...
    The tar of the data directory, as ``pg_basebackup -Ft -X none`` wrote it, cut into **volumes** of equal length
    (``volume_size_bytes`` of tar; the last one is shorter). Each volume is compressed and encrypted by itself, so
    each object is a whole gzip, zstd or lz4 file in a whole age file. The opened volumes, in the order of their
    numbers, are the tar: the cut falls anywhere, also within a file::

        cat base.*.tar.zst | zstd -d | tar -x                                    # not encrypted
        for volume in base.*.tar.zst.age; do age -d -i KEY "$volume" | zstd -d; done | tar -x

    ``gunzip -c`` and ``lz4 -dc`` do the same. gzip and lz4 objects hold many members or frames, a zstd object one.
``<oid>.000000.tar<codec>[.age]``, ...
    The same for each tablespace outside the data directory, by the tablespace's oid. Its files are relative to the
    tablespace's ``location``. The base tar holds PostgreSQL's ``tablespace_map``, from which it makes the links.
``backup_manifest<codec>[.age]``
    PostgreSQL's own manifest of all files, for ``pg_verifybackup``, ``pg_combinebackup`` and as the base of an
    incremental backup. A streamed base tar (``staged`` is false) ends with the same file. A staged one lacks it: put
    it into the restored data directory.
``tar_cuts<codec>[.age]``
    The file within which each volume begins, so that volumes can be extracted in parallel (tar_cuts.py). It exists
    where a tar has several volumes; only speed depends on it.
``configuration.tar<codec>[.age]``
    The configuration files outside the data directory, as on Debian (configuration.py). It exists where there are any.
``report.json``
    What PostgreSQL said of it, where it said anything (report.py). The manifest does not name it.
``manifest.json``
    The JSON of manifest_json.py, never compressed or encrypted, written last and never changed: without it the
    base backup does not exist.

**Order of a chain.** ``chain`` names the base backups that an incremental one of version 1 builds on, the full one
first, its parent last; it is empty for a full one. Open each of ``[*chain, backup_id]`` into its own folder and give
the folders to ``pg_combinebackup`` in that order. Where some of them are of version 2, begin with the newest of these,
which is whole by itself.

**WAL.** ``wal_ranges`` is the WAL that replay needs to become consistent, as the server reports it;
``required_segments`` names its segments. A copy without them is not restorable.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.archive.format.base_backup.report import REPORT_NAME, BackupReport
from wal_pipeline.archive.format.keys import ENCRYPTED_SUFFIX, MANIFEST_NAME
from wal_pipeline.archive.records import BackupKind, BackupMethod, BaseBackup, Codec
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import WalFileName, segment_name

FORMAT: Final = "wal-pipeline base backup"
VERSION: Final = 1
VERSION_LOCAL: Final = 2
BASE_TAR: Final = "base"
FILES: Final = "files"
_ENDING: Final = f"(?:{'|'.join(re.escape(codec.suffix) for codec in Codec)})(?:{re.escape(ENCRYPTED_SUFFIX)})?"
_OBJECT: Final = re.compile(
    rf"(?:{re.escape(MANIFEST_NAME)}|{re.escape(REPORT_NAME)}"
    r"|(?:backup_manifest|tar_cuts|configuration\.tar|file_index(?:\.part\.[0-9]{6,})?"
    rf"|(?:base|files|[1-9][0-9]{{0,9}})\.[0-9]{{6,}}\.tar){_ENDING})\Z"
)
_BACKUP_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9A-F]{24}\Z")


def make_backup_id(started_at: datetime, first_segment: WalFileName) -> str:
    """Return the id of a base backup: it sorts by start time and says where replay begins."""
    return f"{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{first_segment.name[:24]}"


def is_backup_id(text: str) -> bool:
    """Say whether ``text`` has the form that ``make_backup_id`` gives."""
    return _BACKUP_ID.match(text) is not None


def volume_name(tar: str, number: int, codec: Codec, *, encrypted: bool) -> str:
    """Return the name of a volume below the base backup's prefix; ``number`` counts from 0.

    ``tar`` is ``base`` or a tablespace's oid, and ``FILES`` where each volume is a tar of its own.
    """
    return f"{tar}.{number:06d}.tar{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


def backup_manifest_name(codec: Codec, *, encrypted: bool) -> str:
    """Return the name of the object that holds PostgreSQL's own manifest."""
    return f"backup_manifest{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


def tar_cuts_name(codec: Codec, *, encrypted: bool) -> str:
    """Return the name of the object that holds the tars' cuts."""
    return f"tar_cuts{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


def file_index_name(codec: Codec, *, encrypted: bool) -> str:
    """Return the name of the object that says which file lies in which volume."""
    return f"file_index{codec.suffix}{ENCRYPTED_SUFFIX if encrypted else ''}"


def is_backup_object(name: str) -> bool:
    """Say whether a base backup of this version can have an object of that name: no other one is ours to remove."""
    return _OBJECT.match(name) is not None


@dataclass(frozen=True, slots=True)
class BackupObject:
    """One object of a base backup: ``size_bytes`` and ``sha256`` as stored, ``content_size_bytes`` when opened."""

    name: str
    size_bytes: int
    sha256: str
    content_size_bytes: int


@dataclass(frozen=True, slots=True)
class BackupTar:
    """One tar: ``name`` is ``base`` or a tablespace's oid, ``objects`` are its volumes in order.

    ``size_bytes`` and ``sha256`` are the whole tar's.
    """

    name: str
    size_bytes: int
    sha256: str
    objects: tuple[BackupObject, ...]


@dataclass(frozen=True, slots=True)
class BackupVolume:
    """One volume that a base backup is restored from. It lies below ``backup_id``, which may be an earlier one's."""

    backup_id: str
    item: BackupObject


@dataclass(frozen=True, slots=True)
class BackupTablespace:
    """A tablespace outside the data directory; ``location`` is where it lay on the server."""

    oid: int
    location: str

    @property
    def tar(self) -> str:
        """The name of its tar."""
        return str(self.oid)


@dataclass(frozen=True, slots=True)
class WalRange:
    """WAL that replay needs to become consistent: from ``start_lsn`` up to, not including, ``stop_lsn``."""

    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn

    def segments(self, wal_segment_size: int) -> tuple[WalFileName, ...]:
        """Return the names of the segments that hold the range, in order."""
        first = self.start_lsn // wal_segment_size
        last = max(self.start_lsn, self.stop_lsn - 1) // wal_segment_size
        return tuple(segment_name(self.timeline, number, wal_segment_size) for number in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class BaseBackupManifest:
    """Everything that is known about a base backup; the module's docstring says how its objects are opened.

    ``started_at`` is the server's clock just before the start, ``finished_at`` just after the stop.
    ``server_version`` as in ``server_version_num``. ``tar_cuts`` is None where no tar has two volumes,
    ``configuration`` where nothing of it was outside the data directory, or nobody looked. ``report`` lies in an
    object of its own, and is no part of what is compared.

    The method ``local`` has ``volumes`` and a ``file_index``, and no ``tars``; ``size_bytes`` counts its files.
    """

    backup_id: str
    kind: BackupKind
    chain: tuple[str, ...]
    system_identifier: int
    wal_ranges: tuple[WalRange, ...]
    started_at: datetime
    finished_at: datetime
    label: str
    wal_segment_size: int
    server_version: int
    codec: Codec
    encrypted: bool
    staged: bool
    volume_size_bytes: int
    tablespaces: tuple[BackupTablespace, ...]
    tars: tuple[BackupTar, ...]
    backup_manifest: BackupObject
    tar_cuts: BackupObject | None = None
    configuration: BackupObject | None = None
    method: BackupMethod = BackupMethod.REMOTE
    volumes: tuple[BackupVolume, ...] = ()
    file_index: BackupObject | None = None
    files_size_bytes: int = 0
    note: str = ""
    report: BackupReport = field(default=BackupReport(), compare=False)

    @property
    def parent_id(self) -> str | None:
        """The base backup that an incremental one is built on."""
        return self.chain[-1] if self.chain else None

    @property
    def timeline(self) -> int:
        """The timeline on which replay begins."""
        return self.wal_ranges[0].timeline

    @property
    def start_lsn(self) -> Lsn:
        """Where replay begins."""
        return self.wal_ranges[0].start_lsn

    @property
    def stop_lsn(self) -> Lsn:
        """The first LSN at which a recovery from this base backup is consistent."""
        return self.wal_ranges[-1].stop_lsn

    @property
    def objects(self) -> tuple[BackupObject, ...]:
        """All its own objects but ``manifest.json``: those that lie below its id.

        The volumes in order, PostgreSQL's manifest, the index, the configuration files.
        """
        more = (one for one in (self.tar_cuts, self.file_index, self.configuration) if one is not None)
        own = (volume.item for volume in self.volumes if volume.backup_id == self.backup_id)
        return (*(volume for tar in self.tars for volume in tar.objects), *own, self.backup_manifest, *more)

    @property
    def is_combined(self) -> bool:
        """Whether a restore combines it with the base backups of its chain; else it needs volumes of theirs at most."""
        return self.kind is BackupKind.INCREMENTAL and self.method is BackupMethod.REMOTE

    @property
    def referred(self) -> tuple[BackupVolume, ...]:
        """The volumes of earlier base backups that it is restored from."""
        return tuple(volume for volume in self.volumes if volume.backup_id != self.backup_id)

    @property
    def size_bytes(self) -> int:
        """The bytes of all that was read: tars as the server sent them, or the files that are in the base backup."""
        return sum(tar.size_bytes for tar in self.tars) + self.files_size_bytes

    @property
    def stored_size_bytes(self) -> int:
        """The bytes that each store holds, without ``manifest.json``."""
        return sum(item.size_bytes for item in self.objects)

    @property
    def fetched_size_bytes(self) -> int | None:
        """The bytes that a restore downloads for this base backup alone; None where it needs all of its chain."""
        if self.method is not BackupMethod.LOCAL:
            return None
        return self.stored_size_bytes + sum(volume.item.size_bytes for volume in self.referred)

    @property
    def required_segments(self) -> tuple[WalFileName, ...]:
        """The segments without which a copy of this base backup is not restorable, in order.

        Where the timeline switches within a segment, only the newer timeline's file counts: it has the older's bytes.
        """
        size = self.wal_segment_size
        by_number = {name.number(size): name for part in self.wal_ranges for name in part.segments(size)}
        return tuple(by_number[number] for number in sorted(by_number))

    def tar(self, name: str) -> BackupTar:
        """Return the tar of that name (``base`` or a tablespace's oid). Raises: KeyError."""
        for tar in self.tars:
            if tar.name == name:
                return tar
        raise KeyError(name)

    def record(self) -> BaseBackup:
        """Return the base backup as the catalog and the recovery window know it."""
        return BaseBackup(
            backup_id=self.backup_id,
            kind=self.kind,
            parent_id=self.parent_id,
            system_identifier=self.system_identifier,
            timeline=self.timeline,
            start_lsn=self.start_lsn,
            stop_lsn=self.stop_lsn,
            started_at=self.started_at,
            finished_at=self.finished_at,
            wal_segment_size=self.wal_segment_size,
            server_version=self.server_version,
            label=self.label,
            size_bytes=self.size_bytes,
            stored_size_bytes=self.stored_size_bytes,
            warnings=self.report.warnings,
            damaged_pages=self.report.damaged_pages,
            note=self.note,
            fetched_size_bytes=self.fetched_size_bytes,
        )
