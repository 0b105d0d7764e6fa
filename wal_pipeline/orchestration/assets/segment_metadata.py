"""Describes one copy of a WAL file as a materialization for the UI."""

from collections.abc import Mapping

import dagster as dg

from wal_pipeline.archive.records import CommitTimes, Copy, WalFile
from wal_pipeline.orchestration.keys import Keys

Metadata = dict[str, dg.MetadataValue]

_SHOWN_FIRST = (
    "lag_seconds",
    "size_bytes",
    "stored_size_bytes",
    "compression_ratio",
    "codec",
    "checksum_seconds",
    "compress_seconds",
    "store_seconds",
    "timeline",
    "start_lsn",
    "end_lsn",
    "commit_times",
    "first_commit_at",
    "last_commit_at",
    "spooled_at",
    "verified_at",
)
_SHOWN_LAST = ("system_identifier", "object_key", "sha256", "stored_sha256")


def segment_materialization(
    keys: Keys, file: WalFile, copy: Copy, seconds: Mapping[str, float]
) -> dg.AssetMaterialization:
    """Return the materialization of one file's verified copy on one store."""
    return dg.AssetMaterialization(
        asset_key=keys.wal_segment(copy.store),
        partition=file.name,
        description=f"{file.name} verified on {copy.store}",
        metadata=_ordered({**_file_metadata(file), **_copy_metadata(file, copy), **_step_metadata(seconds)}),
    )


def _ordered(metadata: Metadata) -> Metadata:
    """Sort the entries as the UI is to show them: what a person looks at first, digests last."""
    first = [name for name in _SHOWN_FIRST if name in metadata]
    last = [name for name in _SHOWN_LAST if name in metadata]
    between = [name for name in metadata if name not in first and name not in last]
    return {name: metadata[name] for name in (*first, *between, *last)}


def _file_metadata(file: WalFile) -> Metadata:
    found: Metadata = {
        "size_bytes": dg.MetadataValue.int(file.size_bytes),
        "sha256": dg.MetadataValue.text(file.sha256),
        "timeline": dg.MetadataValue.int(file.timeline),
        "system_identifier": dg.MetadataValue.text(str(file.system_identifier)),
        "spooled_at": dg.MetadataValue.timestamp(file.spooled_at),
        "commit_times": dg.MetadataValue.text(_commits(file)),
    }
    if file.start_lsn is not None and file.end_lsn is not None:
        found["start_lsn"] = dg.MetadataValue.text(str(file.start_lsn))
        found["end_lsn"] = dg.MetadataValue.text(str(file.end_lsn))
    if file.first_commit_at is not None:
        found["first_commit_at"] = dg.MetadataValue.timestamp(file.first_commit_at)
    if file.last_commit_at is not None:
        found["last_commit_at"] = dg.MetadataValue.timestamp(file.last_commit_at)
    return found


def _commits(file: WalFile) -> str:
    if file.commit_times is CommitTimes.KNOWN:
        return "known" if file.last_commit_at else "no commit in this segment"
    return "unknown" if file.commit_times is CommitTimes.UNKNOWN else "not a segment"


def _copy_metadata(file: WalFile, copy: Copy) -> Metadata:
    found: Metadata = {"object_key": dg.MetadataValue.text(copy.object_key)}
    if copy.encoding is not None:
        found["stored_size_bytes"] = dg.MetadataValue.int(copy.encoding.size_bytes)
        found["stored_sha256"] = dg.MetadataValue.text(copy.encoding.sha256)
        found["codec"] = dg.MetadataValue.text(copy.encoding.codec.value)
        found["encrypted"] = dg.MetadataValue.bool(copy.encoding.encrypted)
        found["compression_ratio"] = dg.MetadataValue.float(file.size_bytes / max(1, copy.encoding.size_bytes))
    if copy.lag_seconds is not None:
        found["lag_seconds"] = dg.MetadataValue.float(copy.lag_seconds)
    if copy.store_seconds is not None:
        found["store_seconds"] = dg.MetadataValue.float(copy.store_seconds)
    if copy.verified_at is not None:
        found["verified_at"] = dg.MetadataValue.timestamp(copy.verified_at)
    return found


def _step_metadata(seconds: Mapping[str, float]) -> Metadata:
    return {
        f"{step}_seconds": dg.MetadataValue.float(seconds[step]) for step in ("checksum", "compress") if step in seconds
    }
