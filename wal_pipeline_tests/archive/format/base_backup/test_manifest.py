"""The manifest object of a base backup: written, read back, and refused where it cannot be trusted."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.base_backup.manifest import (
    BackupTablespace,
    BaseBackupManifest,
    WalRange,
    is_backup_id,
    is_backup_object,
    make_backup_id,
)
from wal_pipeline.archive.format.base_backup.manifest_json import parse_manifest, to_json
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import BaseBackupError
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at
from wal_pipeline_tests.support.manifests import (
    MIB,
    STARTED_AT,
    make_configuration,
    make_cuts,
    make_local_manifest,
    make_manifest,
    make_tar,
)


def refused(change: Callable[[dict[str, Any]], object], manifest: BaseBackupManifest | None = None) -> str:
    """The message with which a changed manifest is refused that has no checksum of its own."""
    if manifest is None:
        cuts, configuration = make_cuts(Codec.ZSTD, False), make_configuration(Codec.ZSTD, False)
        manifest = make_manifest(tar_cuts=cuts, configuration=configuration)
    values = json.loads(to_json(manifest))
    del values["manifest_sha256"]
    change(values)
    with pytest.raises(BaseBackupError) as caught:
        parse_manifest(json.dumps(values).encode(), backup_id=manifest.backup_id)
    return caught.value.message.removeprefix("manifest 'manifest.json' cannot be used: ")


def set_to(value: object, *path: str | int) -> Callable[[dict[str, Any]], None]:
    """A change of one value."""

    def change(values: Any) -> None:
        for part in path[:-1]:
            values = values[part]
        values[path[-1]] = value

    return change


@given(
    codec=st.sampled_from(Codec),
    encrypted=st.booleans(),
    label=st.text(max_size=40),
    full_volumes=st.integers(0, 5),
    last=st.integers(1, 1000),
    oids=st.lists(st.integers(1, 2**32 - 1), unique=True, max_size=3),
    start=st.integers(1, 2**40),
    length=st.integers(0, 2**28),
)
def test_what_is_written_is_read_back(  # noqa: PLR0917 - Hypothesis passes by name
    codec: Codec, encrypted: bool, label: str, full_volumes: int, last: int, oids: list[int], start: int, length: int
) -> None:
    """Any manifest survives JSON unchanged."""
    volumes = [1000] * full_volumes + [last]
    manifest = make_manifest(
        codec=codec,
        encrypted=encrypted,
        label=label,
        backup_id=make_backup_id(STARTED_AT, segment_at(3, Lsn(start), 16 * MIB)),
        wal_ranges=(WalRange(3, Lsn(start), Lsn(start + length)),),
        tablespaces=tuple(BackupTablespace(oid, f"/space/{oid}") for oid in oids),
        tars=tuple(make_tar(name, volumes, codec, encrypted) for name in (*map(str, oids), "base")),
        tar_cuts=make_cuts(codec, encrypted),
        configuration=make_configuration(codec, encrypted),
    )
    assert parse_manifest(to_json(manifest), backup_id=manifest.backup_id) == manifest
    assert all(is_backup_object(item.name) for item in manifest.objects)  # retention and verification know each
    older = replace(manifest, configuration=None)
    assert parse_manifest(to_json(older), backup_id=manifest.backup_id) == older
    assert parse_manifest(to_json(replace(manifest, tar_cuts=None)), backup_id=manifest.backup_id).tar_cuts is None


@given(
    codec=st.sampled_from(Codec),
    encrypted=st.booleans(),
    own=st.integers(1, 4),
    referred=st.integers(0, 3),
    note=st.text(max_size=30),
    files=st.integers(0, 2**50),
)
def test_a_local_base_backup_is_read_back(  # noqa: PLR0917 - Hypothesis passes by name
    codec: Codec, encrypted: bool, own: int, referred: int, note: str, files: int
) -> None:
    """It has volumes, its own and earlier ones', and knows which objects are its own."""
    manifest = make_local_manifest(
        codec=codec, encrypted=encrypted, own=own, referred=referred, note=note, files_size_bytes=files
    )
    assert parse_manifest(to_json(manifest), backup_id=manifest.backup_id) == manifest
    assert len(manifest.referred) == referred
    assert len(manifest.objects) == own + 2
    assert all(is_backup_object(item.name) for item in manifest.objects)
    assert not manifest.is_combined
    assert (manifest.record().size_bytes, manifest.record().note) == (files, note)


def test_a_note_stays_with_a_base_backup_of_pg_basebackup() -> None:
    """It has the later version then, which an earlier program says."""
    manifest = make_manifest(note="before the migration")
    assert json.loads(to_json(manifest))["version"] == 2
    assert parse_manifest(to_json(manifest), backup_id=manifest.backup_id) == manifest
    assert json.loads(to_json(make_manifest()))["version"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to([], "volumes"), "no volume of its own"),
        (set_to("../x", "volumes", 0, "name"), "object '../x', expected 'files.000000.tar.zst'"),
        (set_to("files.000009.tar.zst", "volumes", 0, "name"), "object 'files.000009.tar.zst', expected 'files.000000.tar.zst'"),  # noqa: E501
        (set_to("../../x", "volumes", 2, "name"), "object '../../x' of another base backup"),
        (set_to("20251122T174500Z-000000010000000000000002", "volumes", 2, "backup_id"), "volume of base backup '20251122T174500Z-000000010000000000000002', not of the chain"),  # noqa: E501
        (set_to("far", "method"), "manifest: expected the keys"),
        (set_to("remote", "method"), "manifest: expected the keys"),
        (set_to([{"oid": 5, "location": "/a/../b"}], "tablespaces"), "tablespace 5 at '/a/../b'"),
        (set_to("../i", "file_index", "name"), "object '../i', expected 'file_index.zst'"),
    ],
)  # fmt: skip
def test_a_local_manifest_that_cannot_be_trusted_is_refused(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    """Paths that lead out of the folder and contradictions are refused, and said."""
    assert refused(change, make_local_manifest(own=2, referred=1)).startswith(message)


def test_the_record_carries_the_sums() -> None:
    """The catalog's record has the tar's bytes and the stored bytes of all objects."""
    cuts, configuration = make_cuts(Codec.ZSTD, False), make_configuration(Codec.ZSTD, False)
    record = make_manifest(tar_cuts=cuts, configuration=configuration).record()
    assert (record.size_bytes, record.stored_size_bytes) == (1024, 334 + 9 + 10 + 5 + 6)
    assert (record.timeline, record.start_lsn, record.stop_lsn) == (1, Lsn.parse("0/2000028"), Lsn.parse("0/2000120"))


def test_required_segments_are_those_that_hold_the_range() -> None:
    """A stop LSN at a segment's very beginning does not need that segment."""
    part = WalRange(1, Lsn.parse("0/2000028"), Lsn.parse("0/4000000"))
    names = [name.name for name in make_manifest(wal_ranges=(part,)).required_segments]
    assert names == ["000000010000000000000002", "000000010000000000000003"]


def test_a_segment_with_a_timeline_switch_is_needed_on_the_newer_timeline_only() -> None:
    """The older timeline's file of that segment may be partial or never archived."""
    switch = Lsn.parse("0/3000500")
    parts = (WalRange(1, Lsn.parse("0/2000028"), switch), WalRange(2, switch, Lsn.parse("0/4000100")))
    names = [name.name for name in make_manifest(wal_ranges=parts).required_segments]
    assert names == ["000000010000000000000002", "000000020000000000000003", "000000020000000000000004"]


def test_ids_sort_by_time() -> None:
    """The later base backup has the greater id, whatever its timeline."""
    segment = segment_at(1, Lsn.parse("0/2000028"), 16 * MIB)
    ids = [make_backup_id(STARTED_AT + timedelta(seconds=n), segment) for n in range(3)]
    assert ids == sorted(ids)
    assert ids[0] == "20261122T174500Z-000000010000000000000002"
    assert is_backup_id(ids[0])
    assert not is_backup_id(ids[0] + "/..")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("tar", "format"), "expected the format ('wal-pipeline base backup', 2), found ('tar', 1)"),
        (set_to(3, "version"), "expected the format ('wal-pipeline base backup', 2), found ('wal-pipeline base backup', 3)"),  # noqa: E501
        (set_to("../base.000000.tar.zst", "tars", 0, "objects", 0, "name"), "object '../base.000000.tar.zst', expected 'base.000000.tar.zst'"),  # noqa: E501
        (set_to("/etc/passwd", "backup_manifest", "name"), "object '/etc/passwd', expected 'backup_manifest.zst'"),
        (set_to("../base", "tars", 0, "name"), "expected the tars ['base']"),
        (set_to([{"oid": 5, "location": "/a/../b"}], "tablespaces"), "expected the tars ['5', 'base']"),
        (set_to(7, "label"), "manifest: 'label' is int, expected str"),
        (set_to(True, "server_version"), "manifest: 'server_version' is bool, expected int"),
        (set_to(1025, "tars", 0, "size_bytes"), "tar 'base' has 1025 bytes, its objects 1024"),
        (set_to(999, "tars", 0, "objects", 0, "content_size_bytes"), "object 'base.000000.tar.zst' holds 999 bytes of tar"),  # noqa: E501
        (set_to("xx", "tars", 0, "sha256"), "tar 'base' has no SHA-256"),
        (set_to("incremental", "kind"), "kind 'incremental' with a chain of 0"),
        (set_to([], "wal_ranges"), "no WAL range"),
        (set_to("0/1000000", "wal_ranges", 0, "stop_lsn"), "WAL range from 0/2000028 to 0/1000000"),
        (set_to(2, "wal_ranges", 0, "timeline"), "the first segment is '000000020000000000000002'"),
        (set_to("2026-11-22T17:45:00", "started_at"), "time 2026-11-22T17:45:00 without a zone"),
        (set_to("rar", "codec"), "'rar' is not a valid Codec"),
        (set_to(["../x"], "chain"), "'../x' is not the id of a base backup"),
        (set_to("../cuts", "tar_cuts", "name"), "object '../cuts', expected 'tar_cuts.zst'"),
        (set_to(None, "tar_cuts"), "manifest: 'tar_cuts' is NoneType, expected dict"),
        (set_to("../c", "configuration", "name"), "object '../c', expected 'configuration.tar.zst'"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_trusted_is_refused(change: Callable[[dict[str, Any]], None], message: str) -> None:
    """Other formats, paths that lead out of the folder and contradictions are refused, and said."""
    assert refused(change) == message


def test_whatever_bit_turns_in_a_manifest_it_is_not_believed() -> None:
    """It is refused, or says the same as before: a wrong checksum in it would cost the good copies on all stores."""
    manifest = make_manifest()
    good = to_json(manifest)
    for position in range(8 * len(good)):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        try:
            assert parse_manifest(bytes(bad), backup_id=manifest.backup_id) == manifest
        except BaseBackupError as error:
            assert "cannot be used: " in error.message


def test_a_manifest_from_before_its_own_checksum_is_read() -> None:
    """It is taken as it is."""
    manifest = make_manifest()
    values = json.loads(to_json(manifest))
    del values["manifest_sha256"]
    assert parse_manifest(json.dumps(values).encode(), backup_id=manifest.backup_id) == manifest


def test_a_tablespace_must_lie_at_an_absolute_path_without_dots() -> None:
    """The restore makes folders at that path, so it is checked here."""
    space = BackupTablespace(5, "/a/../b")
    tars = (make_tar("5", [10], Codec.ZSTD, False), make_tar("base", [10], Codec.ZSTD, False))
    manifest = make_manifest(tablespaces=(space,), tars=tars)
    with pytest.raises(BaseBackupError, match=r"tablespace 5 at '/a/\.\./b'"):
        parse_manifest(to_json(manifest), backup_id=manifest.backup_id)


def test_an_unknown_key_is_refused() -> None:
    """A key that this version does not know may change the meaning of the others."""
    assert refused(set_to(1, "extra")).startswith("manifest: expected the keys ['backup_id', ")


def test_the_manifest_of_another_base_backup_is_refused() -> None:
    """An object that was copied to another place does not pass for the base backup of that place."""
    manifest = make_manifest()
    other = replace(manifest, backup_id=manifest.backup_id.replace("T1745", "T1746"))
    with pytest.raises(BaseBackupError, match=f"it is of base backup '{other.backup_id}', expected"):
        parse_manifest(to_json(other), backup_id=manifest.backup_id)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000])
def test_what_is_not_our_json_is_refused(data: bytes) -> None:
    """Half an object, or none, raises our error and no other."""
    with pytest.raises(BaseBackupError):
        parse_manifest(data, backup_id="20261122T174500Z-000000010000000000000002")
