"""Compression and encryption: what goes in comes out, standard tools open it, and damage is an error."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.age import load_identities
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.codec.levels import LEVELS, WAL_LEVELS
from wal_pipeline.errors import CodecError, SettingsError
from wal_pipeline_tests.support.segments import segment_bytes

DATA = segment_bytes(1)
LIMIT = 1 << 22
TOOLS = {
    Codec.GZIP: ["gunzip", "-c"],
    Codec.ZSTD: ["zstd", "-d", "-c"],
    Codec.LZ4: ["lz4", "-d", "-c"],
    Codec.NONE: ["cat"],
}
COMPRESSING = [Codec.GZIP, Codec.ZSTD, Codec.LZ4]


@pytest.mark.parametrize("codec", Codec)
@given(data=st.binary(max_size=5000))
@settings(max_examples=30, deadline=None)
def test_what_goes_in_comes_out(codec: Codec, data: bytes) -> None:
    """Any bytes, in every codec, are the same again; the digests are those of the stored bytes."""
    made = Encoder(codec).encode(data)
    stored = bytes(made.body.data)
    assert open_stored(stored, codec, encrypted=False, max_size_bytes=5000) == data
    assert made.encoding.size_bytes == len(stored)
    assert made.encoding.sha256 == made.body.sha256 == hashlib.sha256(stored).hexdigest()
    assert made.encoding.md5 == made.body.md5.hex() == hashlib.md5(stored, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("codec", Codec)
def test_the_standard_tool_opens_it(codec: Codec) -> None:
    """What is stored needs no program of ours to be read."""
    if shutil.which(TOOLS[codec][0]) is None:
        pytest.skip(f"'{TOOLS[codec][0]}' is not installed")
    stored = bytes(Encoder(codec).encode(DATA).body.data)
    opened = subprocess.run(TOOLS[codec], input=stored, capture_output=True, check=True, timeout=60)
    assert opened.stdout == DATA


@pytest.mark.parametrize("codec", COMPRESSING)
def test_the_standard_tools_output_is_opened(codec: Codec) -> None:
    """A file that a person compressed by hand can be read too."""
    tool = {Codec.GZIP: "gzip", Codec.ZSTD: "zstd", Codec.LZ4: "lz4"}[codec]
    if shutil.which(tool) is None:
        pytest.skip(f"'{tool}' is not installed")
    packed = subprocess.run([tool, "-c"], input=DATA, capture_output=True, check=True, timeout=60).stdout
    assert open_stored(packed, codec, encrypted=False, max_size_bytes=LIMIT) == DATA


@pytest.mark.parametrize("codec", Codec)
def test_the_same_bytes_give_the_same_bytes(codec: Codec) -> None:
    """A file that is compressed again after a crash is the same object."""
    assert Encoder(codec).compress(DATA) == Encoder(codec).compress(DATA)


@pytest.mark.parametrize("codec", COMPRESSING)
@given(cut=st.integers(min_value=0, max_value=10_000))
@settings(max_examples=25, deadline=None)
def test_bytes_that_are_cut_short(codec: Codec, cut: int) -> None:
    """Any missing end is an error and never a shorter file."""
    stored = Encoder(codec).compress(DATA[:60_000])
    with pytest.raises(CodecError, match=f"bytes are not whole {codec} data: "):
        open_stored(stored[: cut % len(stored)], codec, encrypted=False, max_size_bytes=LIMIT)


@pytest.mark.parametrize("codec", COMPRESSING)
@given(place=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
@settings(max_examples=40, deadline=None)
def test_a_changed_bit(codec: Codec, place: int, bit: int) -> None:
    """One changed bit is an error, or (in a header's free fields) changes nothing: never other content."""
    content = DATA[:60_000]
    stored = bytearray(Encoder(codec).compress(content))
    stored[place % len(stored)] ^= 1 << bit
    try:
        assert open_stored(bytes(stored), codec, encrypted=False, max_size_bytes=LIMIT) == content
    except CodecError as error:
        assert error.message


@pytest.mark.parametrize("codec", Codec)
def test_a_small_object_cannot_fill_the_memory(codec: Codec) -> None:
    """Opening ends at the bound: no bomb of zeros gets further."""
    stored = Encoder(codec).compress(bytes(1 << 20))
    with pytest.raises(CodecError, match=f"{codec} data opens to more than 1000 bytes"):
        open_stored(stored, codec, encrypted=False, max_size_bytes=1000)
    assert len(open_stored(stored, codec, encrypted=False, max_size_bytes=1 << 20)) == 1 << 20


@pytest.mark.parametrize("codec", Codec)
def test_encryption(codec: Codec, tmp_path: Path) -> None:
    """Either recipient's identity opens it, nobody else's, and none is an error with its way out."""
    first, second, stranger = (pyrage.x25519.Identity.generate() for _ in range(3))
    encoder = Encoder(codec, recipients=[str(first.to_public()), str(second.to_public())])
    assert encoder.encrypted
    made = encoder.encode(DATA)
    assert made.encoding.encrypted
    stored = bytes(made.body.data)
    assert stored.startswith(b"age-encryption.org/v1")
    for identity in (first, second):
        (tmp_path / "identity").write_text(f"# a comment\n{identity}\n")
        identities = load_identities(tmp_path / "identity")
        assert open_stored(stored, codec, encrypted=True, identities=identities, max_size_bytes=LIMIT) == DATA
    with pytest.raises(CodecError, match="the object cannot be decrypted"):
        open_stored(stored, codec, encrypted=True, identities=[stranger], max_size_bytes=LIMIT)
    with pytest.raises(CodecError, match="the object is encrypted and there is no identity to open it with") as raised:
        open_stored(stored, codec, encrypted=True, max_size_bytes=LIMIT)
    assert raised.value.hint == "Set WAL_PIPELINE_AGE_IDENTITY_FILE to the file with the age identity."
    with pytest.raises(CodecError):
        open_stored(stored[:-1], codec, encrypted=True, identities=[first], max_size_bytes=LIMIT)


def test_the_age_program_opens_it(tmp_path: Path) -> None:
    """``age -d`` and then the codec's tool give the file back."""
    if shutil.which("age") is None:
        pytest.skip("'age' is not installed")
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(str(identity))
    stored = bytes(Encoder(Codec.NONE, recipients=[str(identity.to_public())]).encode(DATA).body.data)
    command = ["age", "-d", "-i", str(tmp_path / "identity")]
    assert subprocess.run(command, input=stored, capture_output=True, check=True, timeout=60).stdout == DATA


def test_levels() -> None:
    """Every codec's levels work at both ends; one beyond is refused, with what is expected."""
    assert WAL_LEVELS[Codec.GZIP] == 9
    for codec, (lowest, highest) in LEVELS.items():
        for level in (lowest, highest):
            packed = Encoder(codec, level).compress(DATA[:2000])
            assert open_stored(packed, codec, encrypted=False, max_size_bytes=LIMIT) == DATA[:2000]
        for level in (lowest - 1, highest + 1):
            with pytest.raises(SettingsError) as raised:
                Encoder(codec, level)
            assert raised.value.message == f"codec '{codec}' has no level {level}: expected {lowest} to {highest}"


def test_a_recipient_that_is_none() -> None:
    """A public key that cannot be read is named; a secret key in its place is not shown."""
    with pytest.raises(SettingsError, match="age recipient 'age1nonsense' cannot be read: "):
        Encoder(Codec.NONE, recipients=["age1nonsense"])
    secret = str(pyrage.x25519.Identity.generate())
    with pytest.raises(SettingsError, match="age recipient 'AGE-SECRET-KEY-…' cannot be read: ") as raised:
        Encoder(Codec.NONE, recipients=[secret])
    assert secret not in str(raised.value)
