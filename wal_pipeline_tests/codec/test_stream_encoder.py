"""Streams of any length in formats that standard tools open, and back."""

import io
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import pyrage
import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.objects import open_object
from wal_pipeline.errors import CodecError, DamagedCopyError, SettingsError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.manifests import LAYOUT, stored_object

TOOLS = {Codec.GZIP: ["gunzip", "-c"], Codec.ZSTD: ["zstd", "-dc"], Codec.LZ4: ["lz4", "-dc"], Codec.NONE: ["cat"]}


@pytest.fixture(scope="module")
def content() -> bytes:
    """Nine and a bit blocks' worth of bytes that compress somewhat."""
    made = random.Random(5)  # noqa: S311 - the same bytes each time
    return b"".join(made.randbytes(50) + b"a row of a table" * 10 for _ in range(45_000))


def encoded(encoder: StreamEncoder, content: bytes) -> bytes:
    """The stream's bytes as stored."""
    sink = bytearray()
    encoder.encode(io.BytesIO(content), sink.extend)
    return bytes(sink)


@pytest.mark.parametrize("codec", Codec)
def test_the_standard_tool_opens_one_and_several_volumes(codec: Codec, content: bytes) -> None:
    """One volume opens, and so do several that were put one after the other with cat."""
    encoder = StreamEncoder(codec, threads=2)
    stored = encoded(encoder, content) + encoded(encoder, b"the tar's end")
    opened = subprocess.run(TOOLS[codec], input=stored, capture_output=True, check=True, timeout=60).stdout
    assert opened == content + b"the tar's end"


@pytest.mark.parametrize("codec", Codec)
def test_an_encrypted_stream_is_one_age_file(codec: Codec, content: bytes) -> None:
    """age opens it, and then the standard tool does."""
    identity = pyrage.x25519.Identity.generate()
    stored = encoded(StreamEncoder(codec, threads=2, recipients=[str(identity.to_public())]), content)
    plain = pyrage.decrypt(stored, [identity])
    opened = subprocess.run(TOOLS[codec], input=plain, capture_output=True, check=True, timeout=60).stdout
    assert opened == content


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("encrypted", [False, True])
def test_chunks_that_are_encoded_here_open_as_a_stream_does(codec: Codec, encrypted: bool, content: bytes) -> None:
    """Chunks of any length, also many small ones, are one file that the standard tool opens."""
    identity = pyrage.x25519.Identity.generate()
    encoder = StreamEncoder(codec, recipients=[str(identity.to_public())] if encrypted else [])
    sink = bytearray()
    ends = [0, 1, 513, 600_000, 5_000_000, len(content)]
    encoder.encode_here((content[begin:end] for begin, end in pairwise(ends)), sink.extend)
    stored = pyrage.decrypt(bytes(sink), [identity]) if encrypted else bytes(sink)
    assert subprocess.run(TOOLS[codec], input=stored, capture_output=True, check=True, timeout=60).stdout == content


@pytest.mark.parametrize("recipients", [0, 1])
def test_what_the_ends_raise_comes_out(recipients: int) -> None:
    """An error of the source or the sink is that error, also through age."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002
            raise KeyError("source")

    def refuse(_: bytes) -> None:
        raise OSError("sink")

    keys = [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(recipients)]
    encoder = StreamEncoder(Codec.ZSTD, recipients=keys)
    with pytest.raises(KeyError, match="source"):
        encoder.encode(Broken(), lambda _: None)
    with pytest.raises(OSError, match="sink"):
        encoder.encode(io.BytesIO(b"x"), refuse)


def test_a_level_that_the_codec_does_not_have_is_refused() -> None:
    """The message says which levels there are."""
    with pytest.raises(SettingsError) as caught:
        StreamEncoder(Codec.GZIP, 12)
    assert caught.value.message == "codec 'gzip' has no level 12: expected 1 to 9"


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("codec", Codec)
def test_an_object_opens_to_what_was_encoded(tmp_path: Path, codec: Codec, encrypted: bool, content: bytes) -> None:
    """Read from a store, verified, decrypted and decompressed: the same bytes."""
    identity = pyrage.x25519.Identity.generate()
    recipients = [str(identity.to_public())] if encrypted else []
    stored = encoded(StreamEncoder(codec, recipients=recipients), content)
    store, manifest, item = stored_object(tmp_path, codec, stored, len(content), encrypted=encrypted)
    opened = bytearray()
    open_object(
        ClusterStore(store, LAYOUT), manifest, item, identities=[identity] if encrypted else [], sink=opened.extend
    )
    assert bytes(opened) == content


@pytest.mark.parametrize("codec", Codec)
def test_a_damaged_object_is_said_to_be_damaged(tmp_path: Path, codec: Codec, content: bytes) -> None:
    """Whether the codec notices or not, the error names the store and the object's checksum."""
    stored = bytearray(encoded(StreamEncoder(codec), content))
    store, manifest, item = stored_object(tmp_path, codec, bytes(stored), len(content), encrypted=False)
    key = LAYOUT.base_key(manifest.backup_id, item.name)
    store.delete(key)
    stored[len(stored) // 2] ^= 1
    store.put_if_absent(key, Body.of(bytes(stored)), {})
    found = Body.of(bytes(stored)).sha256
    with pytest.raises(DamagedCopyError) as raised:
        open_object(ClusterStore(store, LAYOUT), manifest, item, identities=[], sink=lambda _: None)
    assert raised.value.message == f"r2: object '{key}' has SHA-256 {found}, expected {item.sha256}"


def test_an_encrypted_object_needs_an_identity(tmp_path: Path) -> None:
    """The hint names the setting."""
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    stored = encoded(StreamEncoder(Codec.ZSTD, recipients=[recipient]), b"x")
    store, manifest, item = stored_object(tmp_path, Codec.ZSTD, stored, 1, encrypted=True)
    with pytest.raises(CodecError) as caught:
        open_object(ClusterStore(store, LAYOUT), manifest, item, identities=[], sink=lambda _: None)
    assert caught.value.message.endswith("it is encrypted and there is no identity to open it with")
    assert "WAL_PIPELINE_AGE_IDENTITY_FILE" in (caught.value.hint or "")
