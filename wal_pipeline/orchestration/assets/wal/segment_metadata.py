"""Describes one copy of a WAL file as a materialization for the UI."""

from collections.abc import Mapping

import dagster as dg

from wal_pipeline.archive.records import CommitTimes, Copy, WalFile
from wal_pipeline.orchestration.keys import Keys
from wal_pipeline.text import length, moment_text, moment_utc, size
from wal_pipeline.wal.names import FileKind

_KINDS = {
    FileKind.SEGMENT: "a segment",
    FileKind.PARTIAL: "a partial segment",
    FileKind.HISTORY: "a timeline history file",
    FileKind.BACKUP_HISTORY: "a backup history file",
}

Metadata = dict[str, dg.MetadataValue]

_MIB = 2**20


def segment_materialization(
    keys: Keys, file: WalFile, copy: Copy, seconds: Mapping[str, float]
) -> dg.AssetMaterialization:
    """Return the materialization of one file's verified copy on one store."""
    return dg.AssetMaterialization(
        asset_key=keys.wal_segment(copy.store),
        partition=file.name,
        description=f"{file.name} verified on {copy.store}",
        metadata=segment_metadata(file, copy, seconds),
    )


def segment_metadata(file: WalFile, copy: Copy, seconds: Mapping[str, float]) -> Metadata:
    """Return the rows as the UI is to show them: the sentence, what the UI plots by partition, facts, digests last.

    What is the same for each file, such as its size, is text: a plot of it tells nothing.
    """
    found: Metadata = {"answer": dg.MetadataValue.text(_sentence(file, copy))}
    return found | _numbers(file, copy, seconds) | _times(file, copy) | _facts(file, copy)


def _sentence(file: WalFile, copy: Copy) -> str:
    lag = "" if copy.lag_seconds is None else f" {length(copy.lag_seconds)} after PostgreSQL archived it"
    stored = "" if copy.encoding is None else f", {size(copy.encoding.size_bytes)} for {size(file.size_bytes)}"
    return f"on {copy.store} and verified{lag}{stored}; {_commits(file)}"


def _commits(file: WalFile) -> str:
    if file.commit_times is CommitTimes.KNOWN:
        if file.first_commit_at is None or file.last_commit_at is None:
            return "no commit in this segment"
        return f"commits from {moment_text(file.first_commit_at)} to {moment_utc(file.last_commit_at)}"
    return "commit times unknown" if file.commit_times is CommitTimes.UNKNOWN else _KINDS[file.kind]


def _numbers(file: WalFile, copy: Copy, seconds: Mapping[str, float]) -> Metadata:
    steps = {f"{step}_seconds": seconds[step] for step in ("checksum", "compress") if step in seconds}
    values: dict[str, float | None] = {"lag_seconds": copy.lag_seconds, **steps, "store_seconds": copy.store_seconds}
    if copy.encoding is not None:
        values["stored_mib"] = copy.encoding.size_bytes / _MIB
        values["compression_ratio"] = file.size_bytes / max(1, copy.encoding.size_bytes)
    return {name: dg.MetadataValue.float(round(value, 3)) for name, value in values.items() if value is not None}


def _times(file: WalFile, copy: Copy) -> Metadata:
    moments = {
        "spooled_at": file.spooled_at,
        "verified_at": copy.verified_at,
        "first_commit_at": file.first_commit_at,
        "last_commit_at": file.last_commit_at,
    }
    return {name: dg.MetadataValue.timestamp(at) for name, at in moments.items() if at is not None}


def _facts(file: WalFile, copy: Copy) -> Metadata:
    texts = {"size": f"{size(file.size_bytes)} ({file.size_bytes} bytes)"}
    if file.start_lsn is not None and file.end_lsn is not None:
        texts["lsn"] = f"{file.start_lsn} to {file.end_lsn} on timeline {file.timeline}"
    if copy.encoding is not None:
        encrypted = ", encrypted with age" if copy.encoding.encrypted else ""
        texts["stored"] = f"{copy.encoding.size_bytes} bytes, {copy.encoding.codec.value}{encrypted}"
    texts |= {"system_identifier": str(file.system_identifier), "object_key": copy.object_key, "sha256": file.sha256}
    if copy.encoding is not None:
        texts["stored_sha256"] = copy.encoding.sha256
    return {name: dg.MetadataValue.text(value) for name, value in texts.items()}
