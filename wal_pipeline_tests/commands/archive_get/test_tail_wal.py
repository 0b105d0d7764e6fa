"""A segment from its pieces: what is delivered, what is absent, and what is neither."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.archive_get.tail_wal import (
    PiecesDamagedError,
    RecoveryWal,
    SegmentOffset,
    TailLimits,
    fetch_tail,
)
from wal_pipeline.commands.archive_get.wal_source import WalSource, WalUnreachableError
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.errors import RestoreError
from wal_pipeline.stores.base import StoredObject
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.restore_archive import (
    LAYOUT,
    SEGMENT_SIZE,
    SYSTEM_IDENTIFIER,
    WatchedStore,
    describe_file,
    name_of,
    segment_bytes,
)

NAME = "000000010000000000000003"
NEXT = "000000010000000000000004"
CHILD = "000000020000000000000003"
DATA = segment_bytes(NAME)
END = 300_000
PLACES = (0, 100_000, 200_000, END)
PADDED = DATA[:END].ljust(SEGMENT_SIZE, b"\0")


@pytest.fixture
def r2(tmp_path: Path) -> WatchedStore:
    """The first store."""
    return WatchedStore("r2", tmp_path / "r2")


@pytest.fixture
def b2(tmp_path: Path) -> WatchedStore:
    """The second store."""
    return WatchedStore("b2", tmp_path / "b2")


def ship(
    store: WatchedStore, *places: int, name: str = NAME, data: bytes = DATA, encoder: Encoder | None = None
) -> list[str]:
    """Put pieces of a segment onto a store."""
    pieces = cut(name, data, places, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_SIZE)
    return put_pieces(ClusterStore(store, LAYOUT), pieces, data, encoder)


def wal(*stores: WatchedStore, reach: str | None = None, end: str | None = None, timeline: int = 1) -> RecoveryWal:
    """Return the WAL of a recovery that may use the pieces of a timeline."""
    limits = TailLimits(
        frozenset({timeline}),
        None if reach is None else SegmentOffset.parse(reach),
        None if end is None else SegmentOffset.parse(end),
    )
    return RecoveryWal(WalSource(LAYOUT, stores), limits)


@pytest.mark.parametrize("codec", list(Codec))
def test_the_pieces_are_joined_and_padded(r2: WatchedStore, codec: Codec) -> None:
    """In each codec; the notes say what it is."""
    ship(r2, *PLACES, encoder=Encoder(codec))
    fetched = wal(r2).fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.data, fetched.store) == (PADDED, "r2")
    assert fetched.notes == (f"no store has '{NAME}' whole: 3 pieces up to 0/3493E0, then zeros",)


def test_encrypted_pieces_are_opened(r2: WatchedStore) -> None:
    """A wrong identity is no absence, and no damage."""
    identity, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    ship(r2, *PLACES, encoder=Encoder(Codec.ZSTD, recipients=[str(identity.to_public())]))
    fetched = fetch_tail(WalSource(LAYOUT, (r2,), (identity,)), name_of(NAME))
    assert fetched is not None
    assert fetched.wal.data == PADDED
    for identities in ((), (other,)):
        with pytest.raises(WalUnreachableError) as refused:
            fetch_tail(WalSource(LAYOUT, (r2,), identities), name_of(NAME))
        assert not isinstance(refused.value, PiecesDamagedError)


def test_a_whole_segment_is_taken_before_pieces(r2: WatchedStore, b2: WatchedStore) -> None:
    """Wherever it is."""
    ship(r2, *PLACES)
    b2.add(NAME)
    fetched = wal(r2, b2).fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.data, fetched.store) == (DATA, "b2")


def test_without_the_option_pieces_are_absent(r2: WatchedStore) -> None:
    """And those of another timeline, and what is fetched ahead of replay."""
    ship(r2, *PLACES)
    assert RecoveryWal(WalSource(LAYOUT, (r2,))).fetch(name_of(NAME)) is None
    assert wal(r2, timeline=2).fetch(name_of(NAME)) is None
    assert wal(r2).fetch_whole(name_of(NAME)) is None


def test_pieces_without_a_beginning_are_absence(r2: WatchedStore) -> None:
    """Nothing can be replayed of them."""
    ship(r2, *PLACES[1:])
    assert wal(r2).fetch(name_of(NAME)) is None


def test_a_hole_on_one_store_is_closed_by_the_other(r2: WatchedStore, b2: WatchedStore) -> None:
    """The notes name both."""
    ship(r2, *PLACES[:2])
    ship(b2, *PLACES[1:])
    fetched = wal(r2, b2).fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.data, fetched.store) == (PADDED, "b2 and r2")


@pytest.mark.parametrize("first", [True, False])
def test_a_store_that_does_not_answer_is_an_outage(r2: WatchedStore, b2: WatchedStore, *, first: bool) -> None:
    """It may have the whole segment, or more pieces."""
    ship(r2, *PLACES)
    b2.down = True
    stores = (b2, r2) if first else (r2, b2)
    with pytest.raises(WalUnreachableError) as refused:
        wal(*stores).fetch(name_of(NAME))
    assert refused.value.may_pass


def test_a_store_that_fails_between_the_two_questions_is_an_outage(r2: WatchedStore) -> None:
    """The segment was absent, and then its pieces could not be listed."""
    ship(r2, *PLACES)
    source = WalSource(LAYOUT, (r2,))
    assert source.fetch(name_of(NAME)) is None
    r2.down = True
    with pytest.raises(WalUnreachableError):
        fetch_tail(source, name_of(NAME))


def damage(store: WatchedStore, key: str) -> None:
    """Change a byte of an object."""
    path = store.path_of(key)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def test_a_damaged_piece_is_replaced_by_another_stores(r2: WatchedStore, b2: WatchedStore) -> None:
    """The notes name the damaged one."""
    keys = ship(r2, *PLACES)
    ship(b2, 0, *PLACES[2:])
    damage(r2, keys[1])
    fetched = wal(r2, b2).fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == PADDED


def test_a_damaged_piece_that_nothing_replaces_is_an_error(r2: WatchedStore) -> None:
    """A recovery that ended before it would lose what is there without a word. The next plan says where it ends."""
    keys = ship(r2, *PLACES)
    damage(r2, keys[1])
    with pytest.raises(PiecesDamagedError) as refused:
        wal(r2).fetch(name_of(NAME))
    assert [one.object_key for one in refused.value.damaged] == [keys[1]]
    assert refused.value.message.startswith(
        f"'{NAME}' could not be had from any store:\nr2: object '{keys[1]}' has SHA-256"
    )
    fetched = wal(r2, reach=f"{NAME}+{PLACES[1]}").fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == DATA[: PLACES[1]].ljust(SEGMENT_SIZE, b"\0")


def test_a_damaged_piece_beyond_the_plan_is_the_end(r2: WatchedStore) -> None:
    """The plan left it out and ends before its segment: a recovery that stopped there would stop again each time."""
    key = ship(r2, *PLACES)[0]
    damage(r2, key)
    limited = wal(r2, reach=f"000000010000000000000002+{SEGMENT_SIZE}")
    assert limited.fetch(name_of(NAME)) is None
    (note,) = limited.end_notes.take(name_of(NAME))
    said = f"'{NAME}' is beyond what the restore was planned with, and is not used: r2: object '{key}' has SHA-256 "
    assert note.startswith(said)
    assert limited.fetch(name_of(NAME)) is None
    assert limited.end_notes.take(name_of(NAME)) == ()  # it was said once
    with pytest.raises(PiecesDamagedError):
        wal(r2, reach=f"{NAME}+1").fetch(name_of(NAME))
    with pytest.raises(PiecesDamagedError):
        wal(r2).fetch(name_of(NAME))


def test_a_damaged_whole_copy_beyond_the_plan_is_no_end(r2: WatchedStore, b2: WatchedStore) -> None:
    """Nor beside damaged pieces: nobody planned to end before an archived segment. Without it they are an end."""
    damage(r2, ship(r2, *PLACES)[0])
    whole = b2.add(NAME)
    damage(b2, whole)
    limited = wal(r2, b2, reach=f"000000010000000000000002+{SEGMENT_SIZE}")
    with pytest.raises(WalUnreachableError, match=f"b2: object '{whole}' has SHA-256"):
        limited.fetch(name_of(NAME))
    assert limited.end_notes.take(name_of(NAME)) == ()
    b2.delete(whole)
    assert limited.fetch(name_of(NAME)) is None


def test_a_piece_that_lies_about_what_it_leads_to_is_not_used(r2: WatchedStore, b2: WatchedStore) -> None:
    """Its own digest is right, and that of all content up to its end is another's."""
    first, second, third = cut(NAME, DATA, PLACES, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_SIZE)
    other = bytes(byte ^ 1 for byte in DATA)
    wrong = cut(NAME, other, PLACES, system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_SIZE)[1]
    liar = replace(wrong, before_sha256=second.before_sha256, through_sha256=second.through_sha256)
    put_pieces(ClusterStore(r2, LAYOUT), [liar], other)
    put_pieces(ClusterStore(r2, LAYOUT), [first, third], DATA)
    with pytest.raises(PiecesDamagedError, match="does not lead to the content that it promises"):
        wal(r2).fetch(name_of(NAME))
    put_pieces(ClusterStore(b2, LAYOUT), [second], DATA)
    fetched = wal(r2, b2).fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == PADDED


def test_a_piece_under_another_ones_key_is_not_used(r2: WatchedStore) -> None:
    """Its metadata say what it is; where nobody planned with less, that is an error."""
    keys = ship(r2, *PLACES)
    moved = r2.path_of(keys[0]).read_bytes()
    metadata = r2.metadata_of(keys[0])
    r2.delete(keys[2])
    r2.add_bare(keys[2], moved, metadata)
    with pytest.raises(PiecesDamagedError, match="says that it is bytes 0 to 100000"):
        wal(r2).fetch(name_of(NAME))
    assert wal(r2, reach=f"{NAME}+{PLACES[2]}").fetch(name_of(NAME)) is not None


def test_less_than_was_planned_is_an_error(r2: WatchedStore) -> None:
    """Pieces are gone since the plan; more than was planned is good."""
    ship(r2, *PLACES)
    assert wal(r2, reach=f"{NAME}+{PLACES[2]}").fetch(name_of(NAME)) is not None
    with pytest.raises(RestoreError) as refused:
        wal(r2, reach=f"{NAME}+{END + 1}").fetch(name_of(NAME))
    assert refused.value.message == (
        f"'{NAME}' is not archived as a whole, and pieces on r2 are its first {END} bytes, expected at least "
        f"{END + 1}, with which the restore was planned"
    )
    with pytest.raises(RestoreError, match="expected all of it, with which the restore was planned"):
        wal(r2, reach=f"{NEXT}+1").fetch(name_of(NAME))
    with pytest.raises(RestoreError, match="are its first 0 bytes"):
        wal(r2, reach=f"{NEXT}+1").fetch(name_of(NEXT))
    assert wal(r2, reach=f"{NAME}+1").fetch(name_of(NEXT)) is None


def test_nothing_is_delivered_from_the_end_on(r2: WatchedStore) -> None:
    """Neither of a whole segment, nor of pieces, nor a later segment, on any timeline."""
    r2.add(NAME)
    r2.add(NEXT)
    r2.add(CHILD)
    limited = wal(r2, end=f"{NAME}+{END}")
    for fetch in (limited.fetch, limited.fetch_whole):
        fetched = fetch(name_of(NAME))
        assert fetched is not None
        assert fetched.data == PADDED
        assert fetch(name_of(NEXT)) is None
        child = fetch(name_of(CHILD))
        assert child is not None
        assert child.data == segment_bytes(CHILD)[:END].ljust(SEGMENT_SIZE, b"\0")


def test_an_older_timelines_unfinished_segment_is_not_used(r2: WatchedStore) -> None:
    """Where the newer one's is missing PostgreSQL asks for it, and would pass the switch."""
    ship(r2, *PLACES)
    limits = TailLimits(frozenset({1, 2}))
    assert RecoveryWal(WalSource(LAYOUT, (r2,)), limits).fetch(name_of(NAME)) is None
    ship(r2, END, SEGMENT_SIZE)
    fetched = RecoveryWal(WalSource(LAYOUT, (r2,)), limits).fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == DATA


class MovingStore(WatchedStore):
    """Does something just before pieces are listed for the first time."""

    before_listing: Callable[[], object] | None = None

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[StoredObject]:
        """See ``Store``."""
        if self.before_listing is not None and prefix.startswith(LAYOUT.tail_root):
            act, self.before_listing = self.before_listing, None
            act()
        return super().list(prefix, start_after=start_after)


def test_a_segment_that_is_archived_meanwhile_is_delivered_whole(tmp_path: Path) -> None:
    """Its pieces went between the two questions: that is neither absence nor an end."""
    store = MovingStore("r2", tmp_path / "r2")
    keys = ship(store, *PLACES)

    def archive() -> None:
        store.add(NAME)
        for key in keys[1:]:
            store.delete(key)

    store.before_listing = archive
    fetched = wal(store).fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == DATA


def test_the_words_of_the_limits_are_those_of_the_program() -> None:
    """They come back as they were."""
    place = SegmentOffset(name_of(NAME), END)
    assert TailLimits(frozenset({2, 1}), place, place).words() == [
        "--tail=1",
        "--tail=2",
        f"--tail-reach={NAME}+{END}",
        f"--tail-end={NAME}+{END}",
    ]
    assert SegmentOffset.parse(str(place)) == place
    assert TailLimits().words() == []
    for text in ("", NAME, f"{NAME}+", f"{NAME}+-1", "00000001.history+3"):
        with pytest.raises(ValueError, match="is not a place in the WAL"):
            SegmentOffset.parse(text)


CUTS = st.lists(st.integers(41, 5000), min_size=1, max_size=5, unique=True).map(lambda some: [0, *sorted(some)])


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.tuples(CUTS, CUTS),
    lost=st.sets(st.tuples(st.integers(0, 1), st.integers(0, 4)), max_size=3),
    bad=st.sets(st.tuples(st.integers(0, 1), st.integers(0, 4)), max_size=3),
)
def test_what_is_delivered_is_the_segments_true_beginning_and_all_that_is_promised(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: tuple[list[int], list[int]],
    lost: set[tuple[int, int]],
    bad: set[tuple[int, int]],
) -> None:
    """Two stores at their own pace, with pieces lost and damaged: else it is an error, never a silent earlier end."""
    folder = tmp_path_factory.mktemp("two")
    stores = [WatchedStore(name, folder / name) for name in ("r2", "b2")]
    for index, (store, places) in enumerate(zip(stores, cuts, strict=True)):
        for number, key in enumerate(ship(store, *places)):
            if (index, number) in lost:
                store.delete(key)
            elif (index, number) in bad:
                damage(store, key)
    ends = {0}
    for begin, end in sorted(
        span
        for index, places in enumerate(cuts)
        for number, span in enumerate(pairwise(places))
        if (index, number) not in lost
    ):
        ends |= {end} if begin in ends else set()
    promised = max(ends)
    try:
        fetched = wal(*stores).fetch(name_of(NAME))
    except PiecesDamagedError:
        assert bad
        return
    if promised == 0:
        assert fetched is None
        return
    assert fetched is not None
    assert fetched.data == DATA[:promised].ljust(SEGMENT_SIZE, b"\0")


def test_pieces_are_taken_where_every_whole_copy_is_damaged(r2: WatchedStore, b2: WatchedStore) -> None:
    """As far as the plan counted on them, or where they are all of the segment; the notes name the damaged object."""
    key = b2.add(NAME)
    damage(b2, key)
    ship(r2, *PLACES)
    fetched = wal(r2, b2, reach=f"{NAME}+{END}").fetch(name_of(NAME))
    assert fetched is not None
    assert (fetched.data, fetched.store) == (PADDED, "r2")
    assert fetched.notes[0].startswith(f"b2: object '{key}' has SHA-256 ")
    ship(r2, END, SEGMENT_SIZE)
    for reach in (None, f"{NEXT}+1"):
        fetched = wal(r2, b2, reach=reach).fetch(name_of(NAME))
        assert fetched is not None
        assert fetched.data == DATA


@pytest.mark.parametrize("reach", [None, f"{NAME}+{END + 1}", f"{NEXT}+1", "000000010000000000000002+5"])
def test_a_damaged_copy_is_an_error_where_pieces_are_less_than_planned(
    r2: WatchedStore, b2: WatchedStore, reach: str | None
) -> None:
    """Nobody has planned to end the recovery with them."""
    key = b2.add(NAME)
    damage(b2, key)
    ship(r2, *PLACES)
    with pytest.raises(WalUnreachableError, match=f"b2: object '{key}' has SHA-256"):
        wal(r2, b2, reach=reach).fetch(name_of(NAME))


def test_pieces_do_not_replace_a_copy_that_nobody_could_look_at(r2: WatchedStore, b2: WatchedStore) -> None:
    """Neither beside a store that is down, nor where only the identity is missing, nor without the option."""
    identity = pyrage.x25519.Identity.generate()
    encoder = Encoder(Codec.ZSTD, recipients=[str(identity.to_public())])
    ship(r2, 0, SEGMENT_SIZE)
    store_copy(ClusterStore(b2, LAYOUT), describe_file(NAME, DATA), encoder.encode(DATA), read_back=False)
    with pytest.raises(WalUnreachableError, match="there is no identity"):
        wal(r2, b2).fetch(name_of(NAME))
    fetched = RecoveryWal(WalSource(LAYOUT, (b2, r2), (identity,))).fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == DATA
    b2.down = True
    damage(r2, r2.add(NAME))
    with pytest.raises(WalUnreachableError) as refused:
        wal(r2, b2).fetch(name_of(NAME))
    assert refused.value.may_pass
    with pytest.raises(WalUnreachableError):
        wal(r2, timeline=2).fetch(name_of(NAME))


def test_a_copy_that_is_good_at_the_second_look_is_taken(tmp_path: Path) -> None:
    """A bit turned on the way: pieces that end earlier are not delivered in its place."""
    store = MovingStore("r2", tmp_path / "r2")
    ship(store, *PLACES)
    path = store.path_of(store.add(NAME))
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    store.before_listing = lambda: path.write_bytes(good)
    fetched = wal(store, reach=f"{NAME}+{END}").fetch(name_of(NAME))
    assert fetched is not None
    assert fetched.data == DATA
