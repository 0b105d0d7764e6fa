"""Makes up archives for the tests of the pure core, by hand and by Hypothesis."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter

from wal_pipeline.archive.format.base_backup.manifest import make_backup_id
from wal_pipeline.archive.records import BackupKind, BaseBackup, CommitTimes, WalFile
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup
from wal_pipeline.archive.retention.plan import Expired, Step
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import FileKind, history_name, require_file_name, segment_at, segment_name
from wal_pipeline.wal.timeline import TimelineHistory

SIZE = 1 << 20
SYSTEM = 7_000_000_000_000_000_001
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def day(days: float) -> datetime:
    """Return the moment some days after the first moment of the archive."""
    return START + days * DAY


def name(timeline: int, number: int) -> str:
    """Return a segment's name."""
    return segment_name(timeline, number, SIZE).name


def lsn(number: float) -> Lsn:
    """Return the LSN of a position counted in segments."""
    return Lsn(int(number * SIZE))


def segment(
    timeline: int,
    number: int,
    at: datetime,
    *,
    commits: tuple[datetime, datetime] | None = None,
    times: CommitTimes = CommitTimes.KNOWN,
    system_identifier: int = SYSTEM,
) -> WalFile:
    """Return a segment's record, spooled ``at``."""
    return WalFile(
        name=name(timeline, number),
        kind=FileKind.SEGMENT,
        system_identifier=system_identifier,
        timeline=timeline,
        size_bytes=SIZE,
        sha256="0" * 64,
        spooled_at=at,
        wal_segment_size=SIZE,
        server_major=18,
        start_lsn=Lsn(number * SIZE),
        end_lsn=Lsn((number + 1) * SIZE),
        commit_times=times,
        first_commit_at=commits[0] if commits else None,
        last_commit_at=commits[1] if commits else None,
    )


def other_file(file_name: str, at: datetime) -> WalFile:
    """Return the record of a file that is not a segment, spooled ``at``."""
    parsed = require_file_name(file_name)
    return WalFile(file_name, parsed.kind, SYSTEM, parsed.timeline, 300, "0" * 64, at)


def day_segments(timeline: int, numbers: Iterable[int]) -> list[WalFile]:
    """Return segments: number n was written on day n, with commits at a quarter and at three quarters of it."""
    return [segment(timeline, n, day(n + 1), commits=(day(n + 0.25), day(n + 0.75))) for n in numbers]


def backup(
    backup_id: str, timeline: int, start: float, stop: float, *, parent: str | None = None, at: datetime | None = None
) -> BaseBackup:
    """Return a base backup with positions in segments; by default it finished on the day of its stop."""
    finished_at = at or day(stop)
    return BaseBackup(
        backup_id=backup_id,
        kind=BackupKind.FULL if parent is None else BackupKind.INCREMENTAL,
        parent_id=parent,
        system_identifier=SYSTEM,
        timeline=timeline,
        start_lsn=lsn(start),
        stop_lsn=lsn(stop),
        started_at=finished_at - timedelta(hours=1),
        finished_at=finished_at,
        wal_segment_size=SIZE,
        server_version=180006,
        label="test",
        size_bytes=10**9,
        stored_size_bytes=10**8,
    )


def history(timeline: int, parent: TimelineHistory | int, at: float) -> TimelineHistory:
    """Return the history of a timeline that branches from its parent at a position in segments."""
    origin = TimelineHistory(parent) if isinstance(parent, int) else parent
    return origin.forked(timeline, lsn(at), "test")


def contents(
    files: Iterable[WalFile],
    backups: Mapping[BaseBackup, Collection[str]] | Iterable[BaseBackup] = (),
    *,
    histories: Iterable[TimelineHistory] = (),
    missing: Mapping[str, Collection[str]] | None = None,
    stores: Collection[str] = ("r2",),
) -> ArchiveContents:
    """Return an archive. Each store has all files except its ``missing`` names."""
    named = {one.timeline: one for one in histories}
    held = backups.items() if isinstance(backups, Mapping) else [(one, stores) for one in backups]
    records = [*files, *(other_file(history_name(timeline).name, START) for timeline in named)]
    names = {file.name for file in records}
    return ArchiveContents.of(
        SYSTEM,
        files=records,
        copies={store: names - set((missing or {}).get(store, ())) for store in stores},
        backups=[HeldBackup(one, frozenset(on)) for one, on in held],
        histories=named,
    )


@dataclass(frozen=True, repr=False)
class World:
    """A generated archive and its present moment."""

    contents: ArchiveContents
    now: datetime
    skewed: bool
    whole: bool
    """Every store has everything."""

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:  # noqa: ARG002 - IPython's protocol
        printer.text(repr(self))

    def __repr__(self) -> str:
        """Return a counterexample as text: one line for each base backup, timeline and store."""
        archive = self.contents
        lines = [f"now={self.now:%m-%d %H:%M}"]
        for key, one in archive.backups.items():
            b, on = one.backup, ",".join(sorted(one.stores))
            span = f"{b.start_lsn / SIZE:g}-{b.stop_lsn / SIZE:g}"
            lines.append(f"{key} t{b.timeline} {span} at {b.finished_at:%m-%d %H:%M} parent={b.parent_id} on {on}")
        for timeline, way in archive.histories.items():
            lines.append(f"t{timeline}: {[(one.parent, one.lsn / SIZE) for one in way.switches]}")
        for timeline, files in archive.segments.items():
            times = {
                n: f"{f.last_commit_at:%m-%d}" if f.last_commit_at else f.commit_times.value for n, f in files.items()
            }
            lines.append(f"t{timeline} segments: {times}")
        for store, names in archive.copies.items():
            lines.append(f"{store} lacks {sorted(set(archive.files) - names)}")
        return "\n".join(lines)


@st.composite
def worlds(draw: st.DrawFn, *, skew: bool = False, holes: bool = True) -> World:
    """Draw up to four timelines, base backups with incrementals, and two stores that may differ."""
    histories, begins, lasts, ages = {1: TimelineHistory(1)}, {1: 1}, {1: draw(st.integers(3, 14))}, {1: 0.0}
    for timeline in range(2, draw(st.integers(1, 4)) + 1):
        parent = draw(st.integers(1, timeline - 1))
        number = draw(st.integers(begins[parent], lasts[parent] + 1))
        at = number + draw(st.sampled_from([0.0, 0.25, 0.6]))
        histories[timeline] = history(timeline, histories[parent], at)
        begins[timeline], lasts[timeline] = number, number + draw(st.integers(-1, 8))
        ages[timeline] = ages[parent] + draw(st.integers(0, 6))
    files = [
        draw(_segments(timeline, number, ages[timeline]))
        for timeline in histories
        for number in range(begins[timeline], lasts[timeline] + 1)
    ]
    backups = _drop_orphans(draw(_backups(histories, begins, lasts, ages)))
    if skew:
        files = [draw(_skewed_file(file)) for file in files]
        backups = [replace(one, finished_at=one.finished_at + draw(_SKEW)) for one in backups]
    switched = [one for one in histories.values() if one.switches]
    names = sorted({file.name for file in files} | {history_name(one.timeline).name for one in switched})
    missing = {store: draw(_missing(names)) for store in ("a", "b")} if holes else {}
    held = {
        one: draw(st.sampled_from([("a", "b"), ("a", "b"), ("a",), ("b",)])) if holes else ("a", "b") for one in backups
    }
    made = contents(files, held, histories=switched, missing=missing, stores=("a", "b"))
    return World(made, day(draw(st.integers(5, 60))), skew, not holes)


def after(world: World, store: str, steps: tuple[Expired, ...]) -> ArchiveContents:
    """Return the archive once the steps were done on one store."""
    manifests = {step.name for step in steps if step.step is Step.BACKUP_MANIFEST}
    files = {step.name for step in steps if step.step is Step.WAL_FILE}
    backups = {
        key: HeldBackup(one.backup, one.stores - {store} if key in manifests else one.stores)
        for key, one in world.contents.backups.items()
    }
    copies = {**world.contents.copies, store: world.contents.copies[store] - files}
    return replace(world.contents, backups=backups, copies=copies)


_SKEW = st.sampled_from([0, 0, 0, -40, -7, 3, 30]).map(lambda days: days * DAY)


@st.composite
def _segments(draw: st.DrawFn, timeline: int, number: int, age: float) -> WalFile:
    at = number + age
    commits = draw(st.sampled_from([(day(at + 0.25), day(at + 0.75))] * 4 + [None]))
    times = draw(st.sampled_from([CommitTimes.KNOWN] * 6 + [CommitTimes.UNKNOWN]))
    commits = commits if times is CommitTimes.KNOWN else None
    return segment(timeline, number, day(at + 1), commits=commits, times=times)


@st.composite
def _skewed_file(draw: st.DrawFn, file: WalFile) -> WalFile:
    by = draw(_SKEW)
    moved = {key: at + by for key in ("first_commit_at", "last_commit_at") if (at := getattr(file, key)) is not None}
    return replace(file, spooled_at=file.spooled_at + draw(_SKEW), **moved)


@st.composite
def _backups(
    draw: st.DrawFn,
    histories: Mapping[int, TimelineHistory],
    begins: Mapping[int, int],
    lasts: Mapping[int, int],
    ages: Mapping[int, float],
) -> list[BaseBackup]:
    made: list[BaseBackup] = []
    for count in range(draw(st.integers(0, 6))):
        timeline = draw(st.sampled_from(sorted(histories)))
        begin = max(histories[timeline].switches[-1].lsn / SIZE if timeline > 1 else 1, begins[timeline])
        start = max(draw(st.integers(begins[timeline], max(lasts[timeline], begins[timeline]))) + 0.4, begin)
        stop = start + draw(st.sampled_from([0.1, 0.1, 1.1]))
        ancestors = [
            one for one in made if histories[timeline].holds(one.timeline, one.stop_lsn) and one.stop_lsn <= lsn(start)
        ]
        parent = draw(st.sampled_from([None, None, *(one.backup_id for one in ancestors)]))
        finished_at = day(stop + ages[timeline])
        started_at = finished_at - timedelta(hours=1) + timedelta(seconds=count)
        backup_id = make_backup_id(started_at, segment_at(timeline, lsn(start), SIZE))
        made.append(backup(backup_id, timeline, start, stop, parent=parent, at=finished_at))
    return made


def _drop_orphans(backups: list[BaseBackup]) -> list[BaseBackup]:
    known = {one.backup_id for one in backups}
    return [one for one in backups if one.parent_id is None or one.parent_id in known]


def _missing(names: list[str]) -> st.SearchStrategy[set[str]]:
    few = st.sets(st.sampled_from(names), max_size=3) if names else st.just(set[str]())
    return st.one_of(st.just(set[str]()), few)
