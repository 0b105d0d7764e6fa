"""What is stored encrypted opens with Debian's ``age`` and the codec's own tool; keys rotate without a rewrite."""

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.age import load_identities
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.archive_get.wal_source import WalSource, WalUnreachableError
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.base_backup_scene import TOOLS
from wal_pipeline_tests.support.restore_archive import LAYOUT, WatchedStore, describe_file, name_of, segment_bytes

pytestmark = pytest.mark.skipif(
    shutil.which("age") is None or shutil.which("age-keygen") is None, reason="the program 'age' is not installed"
)
OLD, NEW = "000000010000000000000001", "000000010000000000000002"


@dataclass(frozen=True, slots=True)
class Key:
    """An age identity in a file, as ``age-keygen`` writes it, and its recipient."""

    file: Path
    recipient: str

    def opens(self, stored: bytes, codec: Codec) -> bytes | None:
        """Open stored bytes with ``age -d`` and the codec's tool; None where age refuses."""
        command = ["age", "--decrypt", "--identity", str(self.file)]
        plain = subprocess.run(command, input=stored, capture_output=True, check=False, timeout=60)
        if plain.returncode != 0:
            assert b"no identity matched any of the recipients" in plain.stderr
            return None
        tool = TOOLS[codec].split()
        return subprocess.run(tool, input=plain.stdout, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Key]:
    """Four keys; the last is nobody's recipient."""
    folder = tmp_path_factory.mktemp("keys")
    return [_make_key(folder / str(number)) for number in range(4)]


def _make_key(file: Path) -> Key:
    subprocess.run(["age-keygen", "-o", str(file)], capture_output=True, check=True, timeout=60)
    printed = subprocess.run(["age-keygen", "-y", str(file)], capture_output=True, check=True, text=True, timeout=60)
    return Key(file, printed.stdout.strip())


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore("r2", tmp_path / "r2")


def archive(store: WatchedStore, name: str, codec: Codec, recipients: list[str], found: str | None = None) -> str:
    data = segment_bytes(name)
    encoded = Encoder(codec, recipients=recipients).encode(data)
    return store_copy(ClusterStore(store, LAYOUT), describe_file(name, data), encoded, read_back=True, found=found)[0]


@pytest.mark.parametrize("codec", Codec)
def test_each_recipient_opens_a_segment(store: WatchedStore, keys: list[Key], codec: Codec) -> None:
    """Several recipients at once: each opens the whole object alone, a stranger does not."""
    key = archive(store, OLD, codec, [keys[0].recipient, keys[1].recipient])
    assert key.endswith(f"{codec.suffix}.age")
    stored = store.path_of(key).read_bytes()
    assert [one.opens(stored, codec) for one in keys] == [segment_bytes(OLD)] * 2 + [None] * 2


@pytest.mark.parametrize("codec", Codec)
def test_each_recipient_opens_a_base_backups_volume(keys: list[Key], codec: Codec) -> None:
    """The stream of a base backup is a whole age file too, of several of age's chunks."""
    content = b"".join(segment_bytes(OLD)[:1000] + bytes([number % 256]) * 3000 for number in range(100))
    sink = bytearray()
    encoder = StreamEncoder(codec, threads=2, recipients=[keys[0].recipient, keys[2].recipient])
    encoder.encode(io.BytesIO(content), sink.extend)
    assert [one.opens(bytes(sink), codec) for one in keys] == [content, None, content, None]


def test_keys_rotate(store: WatchedStore, keys: list[Key], tmp_path: Path) -> None:
    """New objects are for the new recipient alone, old ones stay as they are; one file with both opens all."""
    before, after = keys[0], keys[1]
    old = archive(store, OLD, Codec.GZIP, [before.recipient])
    stored = store.path_of(old).read_bytes()
    assert archive(store, OLD, Codec.GZIP, [after.recipient], found=old) == old
    assert store.path_of(old).read_bytes() == stored
    new = archive(store, NEW, Codec.GZIP, [after.recipient])
    opened = {
        one: [key.opens(store.path_of(one).read_bytes(), Codec.GZIP) for key in (before, after)] for one in (old, new)
    }
    assert opened == {old: [segment_bytes(OLD), None], new: [None, segment_bytes(NEW)]}

    both = tmp_path / "identities"
    both.write_text(before.file.read_text() + after.file.read_text())
    for identities, readable in ((both, {OLD, NEW}), (before.file, {OLD}), (after.file, {NEW})):
        source = WalSource(LAYOUT, (store,), tuple(load_identities(identities)))
        assert {name for name in (OLD, NEW) if _fetched(source, name)} == readable


def _fetched(source: WalSource, name: str) -> bool:
    try:
        found = source.fetch(name_of(name))
    except WalUnreachableError as error:
        assert "the object cannot be decrypted" in error.faults[0].message
        return False
    return found is not None and found.data == segment_bytes(name)
