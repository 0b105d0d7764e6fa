"""The volumes of a tar extracted at once, each from where it begins: the same files as from the whole tar."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.postgres_install import PostgresInstall
from wal_pipeline.archive.format.base_backup.manifest import (
    BackupTar,
    BaseBackupManifest,
    backup_manifest_name,
    tar_cuts_name,
    volume_name,
)
from wal_pipeline.archive.format.base_backup.tar_cuts import Cuts, TarCut, cuts_to_json, parse_cuts
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.commands.restore.download import BaseBackupSource
from wal_pipeline.commands.restore.place import extract_base_backup
from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL, release_pg_control, untar, untar_volume
from wal_pipeline.errors import RestoreError
from wal_pipeline.postgres.tar_watch import BLOCK_BYTES, TarWatch
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.base_backup_scene import (
    MIB,
    Scene,
    archiving_cluster,
    folder_store,
    read,
    verify_backup,
)
from wal_pipeline_tests.support.manifests import LAYOUT, make_manifest
from wal_pipeline_tests.support.tars import described, make_tar, produced


def files(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """All that lies in a folder: modes and contents."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def cut(tar: bytes, size: int) -> tuple[list[bytes], list[TarCut | None]]:
    """Cut a tar into volumes of so many bytes, and have it watched."""
    watch = TarWatch({}, size)
    for start in range(0, len(tar), 700):
        watch.feed(tar[start : start + 700])
    volumes = [tar[start : start + size] for start in range(0, len(tar), size)]
    return volumes, watch.cuts[: len(volumes) - 1]


MEMBERS = st.dictionaries(
    st.sampled_from(["base/1", "base/2", "base/b/3", "4", PG_CONTROL]), st.integers(0, 3000), max_size=5
)


@given(st.data(), MEMBERS, st.integers(1, 9))
def test_volumes_in_any_order_make_the_same_files(data: st.DataObject, sizes: dict[str, int], blocks: int) -> None:
    """Wherever the tar is cut, each volume ends where the next was said to begin."""
    members = [(name, (name.encode() * size)[:size], 0o640) for name, size in sizes.items()]
    tar = make_tar(("base", None, 0o750), *members)
    volumes, cuts = cut(tar, blocks * BLOCK_BYTES)
    begins = [None, *cuts]
    with TemporaryDirectory() as whole, TemporaryDirectory() as parts:
        untar(produced(tar), Path(whole))
        ends = {}
        for number in data.draw(st.permutations(range(len(volumes)))):
            last = number == len(volumes) - 1
            ends[number] = untar_volume(produced(volumes[number]), Path(parts), begins[number], last=last)
        assert files(Path(parts)) == files(Path(whole))
    assert [ends[number] for number in range(len(volumes))] == [*cuts, None]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_a_volume_does_not_go_on_outside_the_folder(tmp_path: Path, name: str) -> None:
    """What a manifest says of a volume's beginning is trusted no more than a tar."""
    with pytest.raises(RestoreError) as caught:
        untar_volume(produced(b"x" * 512), tmp_path / "in", TarCut(name, 1024, 512), last=False)
    assert caught.value.message == (
        f"the base backup's tar holds the name '{name}', expected one below the data directory"
    )
    assert not list(tmp_path.iterdir())


def test_a_volume_that_goes_on_with_pg_control_holds_it_back(tmp_path: Path) -> None:
    """No server can start on what one volume alone brought."""
    untar_volume(produced(b"c" * 512), tmp_path, TarCut(PG_CONTROL, 1024, 512), last=False)
    assert [path.name for path in (tmp_path / "global").iterdir()] == [Path(HELD_BACK).name]


def test_the_last_volume_may_not_be_cut_short(tmp_path: Path) -> None:
    """A volume may end within a file, a tar may not."""
    with pytest.raises(RestoreError) as caught:
        untar_volume(produced(b"x" * 512), tmp_path, TarCut("a", 2048, 512), last=True)
    assert caught.value.message == "the base backup's tar is damaged: it was cut short"


class Stored:
    """A forged base backup of three volumes on one store."""

    def __init__(self, folder: Path) -> None:
        self.store: LocalFolderStore = folder_store("r2", folder)
        self.folder = folder
        tar = make_tar(("a", b"a" * 9000, 0o600), ("b", b"b" * 9000, 0o600))
        parts, cuts = cut(tar, 8192)
        objects = tuple(
            described(volume_name("base", number, Codec.NONE, encrypted=False), part)
            for number, part in enumerate(parts)
        )
        self.tar = BackupTar("base", len(tar), hashlib.sha256(tar).hexdigest(), objects)
        self.cuts = cuts
        self.manifest = make_manifest(
            codec=Codec.NONE,
            volume_size_bytes=8192,
            tars=(self.tar,),
            backup_manifest=described(backup_manifest_name(Codec.NONE, encrypted=False), b"{}"),
        )
        for item, part in zip(objects, parts, strict=True):
            self.put(item.name, part)

    def put(self, name: str, data: bytes) -> None:
        """Store one object of the base backup."""
        self.store.put_if_absent(LAYOUT.base_key(self.manifest.backup_id, name), Body.of(data), {})

    def damage(self, name: str) -> None:
        """Have the store keep other bytes than it was given."""
        [path] = [path for path in self.folder.rglob(name) if path.is_file()]
        path.write_bytes(path.read_bytes()[::-1])

    def with_cuts(self, data: bytes) -> None:
        """Store this as the object with the cuts."""
        name = tar_cuts_name(Codec.NONE, encrypted=False)
        self.put(name, data)
        self.manifest = replace(self.manifest, tar_cuts=described(name, data))

    def extract(self) -> None:
        """Extract it; the staging folder is empty afterwards, whatever happens."""
        (staging := self.folder / "staging").mkdir()
        source = BaseBackupSource(self.manifest, LAYOUT, [self.store], staging=staging, hash_tars=False)
        try:
            source.extract(self.tar, self.folder / "pgdata")
        finally:
            assert list(staging.iterdir()) == []

    def is_restored(self) -> bool:
        """Whether all files are there, as they were."""
        pgdata = self.folder / "pgdata"
        return (pgdata / "a").read_bytes() + (pgdata / "b").read_bytes() == b"a" * 9000 + b"b" * 9000


def test_cuts_of_another_tar_are_found_out(tmp_path: Path) -> None:
    """Where a volume ends is compared with where the next was said to begin."""
    stored = Stored(tmp_path)
    wrong: Cuts = (TarCut("elsewhere", 9000, 7680), *stored.cuts[1:])
    stored.with_cuts(cuts_to_json({"base": wrong}))
    with pytest.raises(RestoreError) as caught:
        stored.extract()
    assert caught.value.message == (
        f"volume 'base.000000.tar' of base backup '{stored.manifest.backup_id}' ends with 7680 of 9000 bytes of 'a', "
        "expected 7680 of 9000 bytes of 'elsewhere'"
    )


def test_a_volume_that_no_store_has_whole_ends_the_extraction(tmp_path: Path) -> None:
    """The object is named; the other volumes' threads end too."""
    stored = Stored(tmp_path)
    stored.with_cuts(cuts_to_json({"base": stored.cuts}))
    stored.damage("base.000001.tar")
    with pytest.raises(RestoreError) as caught:
        stored.extract()
    key = LAYOUT.base_key(stored.manifest.backup_id, "base.000001.tar")
    assert caught.value.message.startswith(f"object '{key}' could not be had from any store:")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"base":[null]}',
        b'{"base":[null,{"name":"a"}]}',
        b'{"base":[null,7]}',
        b'{"base":[null,{"name":"a","size_bytes":7,"offset_bytes":7}]}',
        b'{"base":[null,{"name":"a","size_bytes":true,"offset_bytes":0}]}',
        b"[" * 4000,
        b" " * 10_000,
    ],
)
def test_without_usable_cuts_the_volumes_are_taken_in_order(tmp_path: Path, data: bytes) -> None:
    """Nothing but speed depends on them."""
    stored = Stored(tmp_path)
    stored.with_cuts(data or b"x")
    stored.extract()
    assert stored.is_restored()


def test_cuts_that_no_store_has_whole_are_not_needed(tmp_path: Path) -> None:
    """The other objects are there, so the base backup comes back."""
    stored = Stored(tmp_path)
    stored.with_cuts(cuts_to_json({"base": stored.cuts}))
    stored.damage("tar_cuts")
    stored.extract()
    assert stored.is_restored()


@pytest.fixture(scope="module")
def scene(postgres_version: PostgresInstall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A cluster of each version with a large and many small files, and a folder as store."""
    folder = tmp_path_factory.mktemp("volumes")
    with archiving_cluster(postgres_version) as cluster:
        cluster.pgbench_init(scale=2)
        yield Scene(cluster, [folder_store("r2", folder)], folder / "scratch")


@pytest.mark.integration
@pytest.mark.parametrize("known", [True, False], ids=["at once", "in order"])
def test_pg_verifybackup_accepts_what_many_volumes_made(scene: Scene, tmp_path: Path, known: bool) -> None:
    """PostgreSQL's own tar in volumes of 1 MiB: their beginnings known, and as in base backups of before."""
    manifest: BaseBackupManifest = scene.take(volume_size_bytes=MIB).manifest
    assert len(manifest.tar("base").objects) > 20
    assert manifest.tar_cuts is not None
    if not known:
        manifest = replace(manifest, tar_cuts=None)
    (staging := tmp_path / "staging").mkdir()
    source = BaseBackupSource(manifest, scene.layout, scene.stores, staging=staging, hash_tars=False)
    extract_base_backup(manifest, source, tmp_path / "pgdata", {})
    release_pg_control(tmp_path / "pgdata")
    assert verify_backup(scene.cluster.install, tmp_path / "pgdata") == "backup successfully verified"


@pytest.mark.integration
def test_a_name_that_is_cut_is_encrypted_like_the_data(scene: Scene) -> None:
    """No file name of the database is stored in plain."""
    identity = pyrage.x25519.Identity.generate()
    encoder = StreamEncoder(Codec.NONE, recipients=[str(identity.to_public())])
    manifest = scene.take(encoder, volume_size_bytes=MIB).manifest
    assert manifest.tar_cuts is not None
    content = bytearray()
    open_object(
        scene.place(scene.stores[0]),
        manifest,
        manifest.tar_cuts,
        identities=[identity],
        sink=content.extend,
    )
    cuts = parse_cuts(bytes(content), manifest)["base"]
    names = {cut.name for cut in cuts if cut is not None}
    assert any(name.startswith("base/") for name in names)
    stored = b"".join(read(scene.stores[0], key) for key in scene.keys(scene.stores[0]) if manifest.backup_id in key)
    assert not [name for name in names if name.encode() in stored]
