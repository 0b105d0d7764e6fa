"""An object's metadata has all that a lost catalog needs, and nothing in it is trusted unchecked."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.object_metadata import from_metadata, to_metadata
from wal_pipeline.archive.records import Codec, CommitTimes, Encoding, WalFile
from wal_pipeline.errors import InvalidWalFileError
from wal_pipeline.stores.base import check_metadata
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline_tests.support.wal_names import names

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
sizes = st.integers(min_value=0, max_value=2**40)
moments = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=45))),
)
lsns = st.integers(min_value=0, max_value=2**64 - 1).map(Lsn)


@st.composite
def files(draw: st.DrawFn) -> WalFile:
    name = draw(names)
    return WalFile(
        name=name.name,
        kind=name.kind,
        system_identifier=draw(st.integers(min_value=1, max_value=2**64 - 1)),
        timeline=name.timeline,
        size_bytes=draw(sizes),
        sha256=draw(digests),
        spooled_at=draw(moments),
        wal_segment_size=draw(st.none() | st.sampled_from([1 << power for power in range(20, 31)])),
        server_major=draw(st.none() | st.integers(min_value=13, max_value=99)),
        start_lsn=draw(st.none() | lsns),
        end_lsn=draw(st.none() | lsns),
        commit_times=draw(st.sampled_from(CommitTimes)),
        first_commit_at=draw(st.none() | moments),
        last_commit_at=draw(st.none() | moments),
    )


encodings = st.builds(
    Encoding,
    st.sampled_from(Codec),
    st.booleans(),
    sizes,
    digests,
    st.binary(min_size=16, max_size=16).map(bytes.hex),
)


@given(files(), encodings)
def test_what_is_written_is_read(file: WalFile, encoding: Encoding) -> None:
    """A file and its encoding come back exactly, from few enough pairs that every store can keep."""
    metadata = to_metadata(file, encoding)
    assert from_metadata("a/key", metadata) == (file, encoding)
    assert check_metadata("r2", "a/key", metadata) == metadata
    assert len(metadata) <= 10


@given(files(), encodings, st.data())
def test_metadata_that_was_lost_or_changed(file: WalFile, encoding: Encoding, data: st.DataObject) -> None:
    """Whatever a copy between stores did to it, it is read as something or refused by the object's name."""
    metadata = to_metadata(file, encoding)
    pair = data.draw(st.sampled_from(sorted(metadata)))
    changed = data.draw(st.none() | st.text(max_size=30))
    broken = {name: value for name, value in metadata.items() if name != pair}
    broken |= {} if changed is None else {pair: changed}
    try:
        found, _ = from_metadata("a/key", broken)
    except InvalidWalFileError as error:
        assert error.message.startswith("object 'a/key' has metadata that cannot be read: ")
    else:
        assert found.name == file.name or changed


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=6))
def test_metadata_of_other_programs(metadata: dict[str, str]) -> None:
    """An object that is not ours is refused and never an error that nobody expects."""
    with pytest.raises(InvalidWalFileError):
        from_metadata("a/key", metadata)


FILE = WalFile("00000002.history", "history", 5, 2, 42, "a" * 64, datetime(2026, 11, 22, 12, tzinfo=UTC))  # type: ignore[arg-type]
ENCODING = Encoding(Codec.ZSTD, False, 40, "b" * 64, "c" * 32)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name=00000002.history", "name=../evil"),
        ("size=42", "size=many"),
        ("spooled-at=2026-11-22T12:00:00+00:00", "spooled-at=yesterday"),
        ("spooled-at=2026-11-22T12:00:00+00:00", "spooled-at=2026-11-22T12:00:00"),
        ("sha256=" + "a" * 64, "sha256=short"),
        ("stored-sha256=" + "b" * 64, "stored-sha256=" + "B" * 64),
        ("codec=zstd", "codec=brotli"),
        ("encrypted=no", "encrypted=perhaps"),
        ("system-identifier=5", "system-identifier=-5"),
    ],
)
def test_values_that_cannot_be(old: str, new: str) -> None:
    """Each value is held to what it can be: a wrong one is refused, not believed."""
    metadata = to_metadata(FILE, ENCODING)
    changed = {
        name: " ".join(new if word == old else word for word in value.split()) for name, value in metadata.items()
    }
    assert changed != metadata
    with pytest.raises(InvalidWalFileError, match="object 'a/key' has metadata that cannot be read: "):
        from_metadata("a/key", changed)


def test_another_format() -> None:
    """Metadata of a later format is refused by its number."""
    metadata = to_metadata(FILE, ENCODING) | {"wal-format": "2"}
    with pytest.raises(InvalidWalFileError, match="ValueError format 2"):
        from_metadata("a/key", metadata)


def test_compression_time_is_not_kept() -> None:
    """How long it took is of the moment: the catalog's record has it, the object does not."""
    assert from_metadata("k", to_metadata(FILE, replace(ENCODING, seconds=3.5)))[1] == ENCODING
