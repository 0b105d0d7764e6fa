"""Draws a schedule of faults from its seed alone, so that a failure can be played again."""

import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

STORES: Final = ("r2", "b2")
DAEMON_EVERY: Final = 5


class Kind(StrEnum):
    """The kinds of events. Those of a store act through the proxy before it, except its own crash and damage."""

    KILL_RUN = "kill the archiving run"
    KILL_POSTGRES = "kill PostgreSQL"
    KILL_STORE = "kill a store"
    KILL_DAEMON = "kill the daemon"
    KILL_CODE_SERVER = "kill the code server"
    KILL_ALL = "kill PostgreSQL and the archiving run at once"
    RESET_IN_PUT = "reset in the middle of a put"
    RESET_AFTER_PUT = "reset after a put was done"
    ANSWER_503 = "answer 503"
    ANSWER_429 = "answer 429"
    ANSWER_500 = "answer 500"
    ANSWER_500_AFTER = "do the put and answer 500"
    ERROR_IN_200 = "answer 200 with an error body"
    LATENCY = "answer late"
    STORE_HALF = "store half of a put"
    STORE_FLIPPED = "store a put with a flipped bit"
    SWALLOW = "say that a put was stored and forget it"
    FLIP_READ = "flip a bit of what is read"
    CUT_READ = "cut short what is read"
    REFUSE = "refuse every connection for a while"
    SILENCE = "take requests and say nothing for a while"
    SPOOL_FULL = "fill the spool's disk"
    QUARANTINE_FULL = "fill the quarantine's disk"
    CLOCK_STEP = "step the archiver's clock"
    DUPLICATE = "archive a file a second time"
    HOLD_BACK = "hold back a file, out of order"
    IMPOSTOR = "archive other content under an archived name"
    HALF_FILE = "leave half a file under the next name"
    PROMOTION = "promote to a new timeline"
    CATALOG_LOST = "remove the catalog and kill the run"
    HOME_LOST = "remove DAGSTER_HOME"
    BACK_UP = "take another base backup meanwhile"
    STAGING_FULL = "take another base backup and fill the staging folder's disk"
    COPY_ARCHIVES = "let a restored copy archive into the original's spool"
    TWO_PROMOTIONS = "promote two servers onto one timeline"
    EXPIRE_DAMAGED = "run the expiry while a base backup is damaged"
    BACK_UP_TWICE = "take two base backups at once"
    BACK_UP_STALL = "stop a base backup until its leftovers are old enough to be removed"
    KILL_SHIPPER = "kill the shipper between two pieces"
    FREEZE_SHIPPER = "freeze the shipper for a while"
    PIECE_TWICE = "store a piece and reset the connection, so that it is sent again"
    PIECE_LATE = "deliver a piece late, after it was sent again"
    PIECE_LIE = "lie about a piece: half of it, a flipped bit, or nothing is stored"
    PIECE_CUT = "reset in the middle of a piece"


class Again(StrEnum):
    """How a restore comes to its data directory."""

    EMPTY = "into an empty folder"
    KILLED = "over what a killed restore left"
    DELTA = "by --delta, over a restore whose files were changed"


class Recovery(StrEnum):
    """The troubles during a restore."""

    QUIET = "nothing"
    CUT_OFF = "the stores are cut off in the middle of the recovery"
    STORE_DOWN = "one store is down"
    STORE_LIES = "every object of one store has a flipped bit or is cut short"


_METHODS: Final = ("local", "remote")
_OF_A_STORE: Final = frozenset(
    {
        Kind.KILL_STORE,
        Kind.RESET_IN_PUT,
        Kind.RESET_AFTER_PUT,
        Kind.ANSWER_503,
        Kind.ANSWER_429,
        Kind.ANSWER_500,
        Kind.ANSWER_500_AFTER,
        Kind.ERROR_IN_200,
        Kind.LATENCY,
        Kind.STORE_HALF,
        Kind.STORE_FLIPPED,
        Kind.SWALLOW,
        Kind.FLIP_READ,
        Kind.CUT_READ,
        Kind.REFUSE,
        Kind.SILENCE,
        Kind.EXPIRE_DAMAGED,
        Kind.PIECE_TWICE,
        Kind.PIECE_LATE,
        Kind.PIECE_LIE,
        Kind.PIECE_CUT,
    }
)
_OF_SHIPPING: Final = (
    Kind.KILL_SHIPPER,
    Kind.FREEZE_SHIPPER,
    Kind.PIECE_TWICE,
    Kind.PIECE_LATE,
    Kind.PIECE_LIE,
    Kind.PIECE_CUT,
    Kind.PROMOTION,
)
_OF_THE_DAEMON: Final = frozenset({Kind.KILL_DAEMON, Kind.KILL_CODE_SERVER, Kind.HOME_LOST})
_OFTEN: Final = {Kind.KILL_RUN: 4, Kind.PROMOTION: 2, Kind.REFUSE: 2, Kind.BACK_UP: 2, Kind.EXPIRE_DAMAGED: 2}
LYING: Final = frozenset({Kind.STORE_HALF, Kind.STORE_FLIPPED, Kind.SWALLOW})
LYING_ABOUT_PIECES: Final = LYING | {Kind.PIECE_LIE}
_SECOND_SERVER: Final = frozenset({Kind.COPY_ARCHIVES, Kind.TWO_PROMOTIONS})
_FULL_DISK: Final = frozenset({Kind.SPOOL_FULL, Kind.QUARANTINE_FULL, Kind.STAGING_FULL})
_LONGEST_AFTER_SECONDS: Final = 6.0
_UNSCALED_SHARE: Final = 0.25
LONGEST_LATENCY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Event:
    """One fault. ``at_seconds`` after the load began, ``times`` or for ``seconds``, with a strength of 0 to 1."""

    at_seconds: float
    kind: Kind
    store: str | None
    times: int
    seconds: float
    strength: float

    def __str__(self) -> str:
        """Return the event in one line."""
        where = f" on {self.store}" if self.store else ""
        return f"{self.at_seconds:.1f} s: {self.kind.value}{where} (times {self.times}, {self.seconds:.1f} s)"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. ``linger_seconds``: how long an archiving process waits for new files before it ends.

    ``with_library``: PostgreSQL archives with ``basic_archive``, else with our ``archive_command``.
    ``with_tablespace``: the ledger lies in a tablespace, so base backups go through the staging folder.

    Every schedule loses its host: ``lost_after_seconds`` after the last fault may have begun, with those that are not
    over yet, or when all is calm (None). ``lying_pieces`` is a store whose pieces have a flipped bit while the end is
    restored elsewhere: from the plan on with ``lies_from_plan``, else only while the server recovers.
    ``cut_off_after_loss`` is another store, cut off in the middle of that recovery. ``damaged_whole`` is a store that
    has half stored the next whole segment, or with a flipped bit, when the host is lost.

    ``methods``: how each base backup is taken, by turns: its method, and whether it is an incremental one. With
    ``workers`` as many processes read the files of those that are ``local``, with 0 threads do.
    """

    seed: int
    seconds: float
    events: tuple[Event, ...]
    with_daemon: bool
    with_library: bool
    with_tablespace: bool
    recovery: Recovery
    linger_seconds: float
    lost_after_seconds: float | None
    lying_pieces: str | None
    lies_from_plan: bool
    cut_off_after_loss: str | None
    damaged_whole: str | None
    methods: tuple[tuple[str, bool], ...]
    again: Again
    workers: int

    def backup_settings(self, method: str) -> dict[str, str]:
        """Return the settings of a base backup of this method."""
        workers = {"WAL_PIPELINE_BASE_BACKUP_WORKERS": str(self.workers)} if self.workers else {}
        return {"WAL_PIPELINE_BACKUP_METHOD": method, **workers}

    @property
    def needs_small_disks(self) -> bool:
        """Whether the schedule fills a disk. Spool and quarantine are then small file systems of their own."""
        return any(event.kind in _FULL_DISK for event in self.events)


def draw(
    seed: int, *, seconds: float, max_latency_seconds: float, full_disks: bool, damaged_wholes: bool = False
) -> Schedule:
    """Draw the schedule of a seed. ``full_disks``: whether small file systems can be mounted here.

    Answers are up to ``max_latency_seconds`` late, but in one of four such events up to 30 s. ``damaged_wholes``:
    whether one store has half stored the next whole segment when the host is lost.
    """
    rng = random.Random(seed)  # noqa: S311 - a schedule must be the same each time
    with_daemon = seed % DAEMON_EVERY == DAEMON_EVERY - 1
    with_tablespace = rng.random() < 0.25
    own_of_shipping = set(_OF_SHIPPING) - {Kind.PROMOTION}
    kinds = [kind for kind in Kind if kind not in own_of_shipping and (full_disks or kind not in _FULL_DISK)]
    kinds = [kind for kind in kinds if with_tablespace or kind is not Kind.STAGING_FULL]
    kinds = [kind for kind in kinds if with_daemon or kind not in _OF_THE_DAEMON]
    kinds = [kind for kind in kinds if not (with_daemon and kind is Kind.CLOCK_STEP)]
    weights = [_OFTEN.get(kind, 1) for kind in kinds]
    chosen = _with_one_second_server(rng.choices(kinds, weights, k=rng.randint(3, 8)))
    events = [_event(rng, kind, seconds, max_latency_seconds) for kind in chosen]
    own = random.Random(f"shipping {seed}")  # noqa: S311 - what is drawn for shipping changes nothing of the rest
    events += _of_shipping(own, seconds, second_server=bool(_SECOND_SERVER.intersection(chosen)))
    lost_after_seconds = own.choice([None, own.uniform(0, _LONGEST_AFTER_SECONDS)])
    lying_pieces = own.choice([*STORES, None, None])
    lies_from_plan = own.random() < 0.5
    cut_off = own.choice([own.choice([store for store in STORES if store != lying_pieces]), None, None])
    backups = random.Random(f"base backups {seed}")  # noqa: S311 - what is drawn for them changes nothing of the rest
    return Schedule(
        seed=seed,
        seconds=seconds,
        events=tuple(sorted(events, key=lambda event: event.at_seconds)),
        with_daemon=with_daemon,
        with_library=rng.random() < 0.5,
        with_tablespace=with_tablespace,
        recovery=rng.choice(list(Recovery)),
        linger_seconds=rng.choice([0.5, 3.0, 60.0]),
        lost_after_seconds=lost_after_seconds,
        lying_pieces=lying_pieces,
        lies_from_plan=lies_from_plan,
        cut_off_after_loss=cut_off,
        damaged_whole=own.choice(STORES) if damaged_wholes else None,
        methods=(
            (backups.choice(_METHODS), False),
            *((backups.choice(_METHODS), backups.random() < 0.6) for _ in "12345"),
        ),
        again=backups.choice(list(Again)),
        workers=backups.choice([0, 1, 3]),
    )


def _with_one_second_server(kinds: list[Kind]) -> list[Kind]:
    """Keep the first event with a second server, and then no promotion of the original by itself.

    Onto one timeline with its copy, which of the two is the archive's would be the one that came first.
    """
    second = next((kind for kind in kinds if kind in _SECOND_SERVER), None)
    if second is None:
        return kinds
    return [second, *(kind for kind in kinds if kind not in _SECOND_SERVER and kind is not Kind.PROMOTION)]


def _of_shipping(rng: random.Random, seconds: float, *, second_server: bool) -> list[Event]:
    """Draw one to three faults of shipping. A promotion among them is one in the middle of a segment: after a crash."""
    kinds = [kind for kind in _OF_SHIPPING if not (second_server and kind is Kind.PROMOTION)]
    events = [_event(rng, kind, seconds, 0) for kind in rng.choices(kinds, k=rng.randint(1, 3))]
    return [replace(event, strength=event.strength / 2) if event.kind is Kind.PROMOTION else event for event in events]


def _event(rng: random.Random, kind: Kind, seconds: float, max_latency_seconds: float) -> Event:
    if kind is Kind.LATENCY:
        unscaled = rng.random() < _UNSCALED_SHARE
        length = rng.uniform(0.1, max(max_latency_seconds, LONGEST_LATENCY_SECONDS * unscaled))
    else:
        length = rng.uniform(0.2, seconds / 2)
    return Event(
        at_seconds=rng.uniform(0, seconds),
        kind=kind,
        store=rng.choice(STORES) if kind in _OF_A_STORE else None,
        times=rng.choice([1, 2, 6, 15]),
        seconds=length,
        strength=rng.random(),
    )
