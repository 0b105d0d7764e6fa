"""Object keys: made and read in one place, and each file has one for each encoding."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.archive.format.keys import (
    Layout,
    StoredListName,
    WalKeyReader,
    check_key_part,
    cluster_prefix,
    moment_name,
    read_moment_name,
    system_identifier_of,
)
from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import SettingsError
from wal_pipeline.stores.base import check_key
from wal_pipeline.wal.names import FileKind, WalFileName, require_file_name, segment_name
from wal_pipeline_tests.support.wal_names import names, parts, timelines

LAYOUT = Layout("backups/prod", "main", 7_400_000_000_000_000_001)
ROOT = "backups/prod/main/7400000000000000001/wal/"
layouts = st.builds(
    Layout,
    st.lists(parts, max_size=3).map("/".join),
    parts,
    st.integers(min_value=1, max_value=2**64 - 1),
)


@pytest.mark.parametrize(
    ("name", "codec", "encrypted", "key"),
    [
        ("000000010000000000000005", Codec.GZIP, False, "00000001/0000000100000000/000000010000000000000005.gz"),
        ("0000000100000002000000FF", Codec.ZSTD, True, "00000001/0000000100000002/0000000100000002000000FF.zst.age"),
        ("000000010000000000000005", Codec.NONE, False, "00000001/0000000100000000/000000010000000000000005"),
        ("0000000A.history", Codec.LZ4, False, "0000000A/0000000A.history.lz4"),
        (
            "000000010000000000000005.00000028.backup",
            Codec.NONE,
            True,
            "00000001/0000000100000000/000000010000000000000005.00000028.backup.age",
        ),
    ],
)
def test_keys_as_they_are_documented(name: str, codec: Codec, encrypted: bool, key: str) -> None:
    """The keys that stand in the documents, and that other programs may rely on."""
    assert LAYOUT.wal_key(require_file_name(name), codec, encrypted=encrypted) == ROOT + key


@given(layouts, names, st.sampled_from(Codec), st.booleans())
def test_a_key_is_read_back(layout: Layout, name: WalFileName, codec: Codec, encrypted: bool) -> None:
    """Every key gives its file, codec and encryption again, is valid on every store, and is found by its stem."""
    key = layout.wal_key(name, codec, encrypted=encrypted)
    found = layout.parse_wal_key(key)
    assert found is not None
    assert (found.file, found.codec, found.encrypted) == (name, codec, encrypted)
    assert check_key("r2", key) == key
    assert key.startswith(layout.wal_stem(name))
    assert key.startswith(layout.wal_root)
    assert layout.wal_stem(name).startswith(layout.wal_folder(name))
    assert system_identifier_of(layout.prefix, layout.cluster, key) == layout.system_identifier


@given(layouts, names, names, st.sampled_from(Codec), st.sampled_from(Codec))
def test_two_files_never_share_a_key(
    layout: Layout, one: WalFileName, two: WalFileName, codec: Codec, other: Codec
) -> None:
    """Keys are equal only where file and encoding are."""
    same = layout.wal_key(one, codec, encrypted=False) == layout.wal_key(two, other, encrypted=False)
    assert same == ((one, codec) == (two, other))


@given(layouts, st.text(max_size=60))
def test_other_keys_are_not_read(layout: Layout, text: str) -> None:
    """Whatever else lies in a bucket is none of ours."""
    key = layout.wal_root + text
    found = layout.parse_wal_key(key)
    assert found is None or layout.wal_key(found.file, found.codec, encrypted=found.encrypted) == key


@pytest.mark.parametrize(
    "key",
    [
        ROOT + "00000001/0000000100000001/000000010000000000000005.gz",  # another log's folder
        ROOT + "00000002/0000000100000000/000000010000000000000005.gz",  # another timeline's
        ROOT + "00000001/0000000100000000/000000010000000000000005.bz2",
        ROOT + "00000001/0000000100000000/000000010000000000000005.gz.gz",
        ROOT + "00000001/0000000100000000/000000010000000000000005.age.gz",
        ROOT + "00000001/0000000100000000/00000001000000000000000a.gz",
        ROOT.replace("/main/", "/other/") + "00000001/0000000100000000/000000010000000000000005.gz",
    ],
)
def test_keys_that_look_almost_right(key: str) -> None:
    """Only the exact key counts."""
    assert LAYOUT.parse_wal_key(key) is None


@given(st.lists(st.tuples(timelines, st.integers(0, 2**40)), min_size=2, max_size=30))
def test_keys_are_listed_in_wal_order(places: list[tuple[str, int]]) -> None:
    """A store lists a timeline's segments in WAL order, for lists are in the order of keys."""
    made = [segment_name(int(timeline, 16), number % 2**36, 1 << 24) for timeline, number in places]
    by_key = sorted(made, key=lambda name: LAYOUT.wal_key(name, Codec.GZIP, encrypted=False))
    assert by_key == sorted(made, key=lambda name: name.order)


@given(names, names)
def test_the_archiving_order_is_total(one: WalFileName, two: WalFileName) -> None:
    """Two names stand in one order or are one name; history files go before all others."""
    assert (one.order == two.order) == (one == two)
    if one.kind is FileKind.HISTORY and two.kind is not FileKind.HISTORY:
        assert one.order < two.order


@pytest.mark.parametrize("bad", ["", "a b", "../x", "-x", ".x", "ä", "a/b", "a\n"])
def test_names_that_cannot_be_part_of_a_key(bad: str) -> None:
    """They are refused by name, with the rule."""
    with pytest.raises(SettingsError) as raised:
        check_key_part("the cluster's name", bad)
    assert raised.value.message == f"the cluster's name '{bad}' cannot be part of an object key"
    assert raised.value.hint == "Use letters, digits, '.', '_' and '-', and begin with a letter or a digit."


near_keys = st.lists(
    st.sampled_from(
        ["wal", "00000001", "00000000", "0000000100000000", "000000010000000000000005", "0000000000000000", "0000000A",
         "/", ".gz", ".zst", ".age", ".partial", ".00000028.backup", ".history", "base", "0000000a", "5", "\n"]
    ),
    max_size=8,
).map(lambda words: ROOT.removesuffix("wal/") + "".join(words))  # fmt: skip


@given(
    st.lists(st.one_of(near_keys, st.builds(LAYOUT.wal_key, names, st.sampled_from(Codec), encrypted=st.booleans())))
)
def test_a_listing_is_read_as_its_keys_are_one_by_one(keys: list[str]) -> None:
    """The folder that the reader remembers changes no result, whatever keys come before and after."""
    reader = WalKeyReader(LAYOUT)
    one_by_one = [LAYOUT.parse_wal_key(key) for key in keys]
    assert [reader.name(key) for key in keys] == [None if one is None else one.file.name for one in one_by_one]


def test_prefixes() -> None:
    """Slashes at the ends or doubled make no empty part; one cluster's prefix is not the start of another's."""
    assert cluster_prefix("/a//b/", "main") == "a/b/main/"
    assert cluster_prefix("", "main") == "main/"
    assert system_identifier_of("", "main", "main2/12/wal/x") is None
    assert system_identifier_of("", "main", "main/notdigits/wal/x") is None
    assert system_identifier_of("", "main", "main/12/wal/x") == 12


def test_base_backup_keys() -> None:
    """A base backup's parts lie under its id, which is read back from any of them."""
    backup_id = "20261122T120000Z-000000010000000000000002"
    assert LAYOUT.manifest_key(backup_id) == f"{LAYOUT.root}base/{backup_id}/manifest.json"
    assert LAYOUT.backup_id_of(LAYOUT.base_key(backup_id, "base.tar.zst")) == backup_id
    assert LAYOUT.backup_id_of(LAYOUT.wal_root + "x/y") is None
    assert LAYOUT.backup_id_of(LAYOUT.base_root + "lonely") is None


@given(layouts, st.datetimes(), st.sampled_from(Codec), st.booleans())
def test_a_list_of_relations_is_found_by_its_moment(
    layout: Layout, at: datetime, codec: Codec, encrypted: bool
) -> None:
    """The moment is to the second, in UTC; whatever else lies there is none of ours."""
    moment = moment_name(at.replace(year=max(at.year, 1000), tzinfo=UTC))
    key = layout.relations_key(moment, codec, encrypted=encrypted)
    assert check_key("r2", key) == key
    assert layout.parse_relations_key(key) == StoredListName(moment, codec, encrypted)
    assert layout.parse_piece_key(key) is layout.parse_wal_key(key) is layout.parse_lease_key(key) is None
    assert layout.parse_relations_key(f"{key}.bak") is None
    assert layout.parse_relations_key(key.replace(layout.relations_root, layout.base_root)) is None


@pytest.mark.parametrize("moment", ["20261122T1745Z", "20261322T174500Z", "20261122T174500", " 20261122T174500Z", ""])
def test_a_moment_is_read_strictly(moment: str) -> None:
    """An object of another program in the folder stays where it is."""
    assert read_moment_name(moment) is None
    assert LAYOUT.parse_relations_key(f"{LAYOUT.relations_root}{moment}.json.zst") is None
