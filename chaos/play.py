"""Plays a schedule's events against its world, and ends every fault in the end."""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos.archiving import CommandArchiving, DaemonArchiving
from chaos.backing_up import Backups
from chaos.damaging import Damage
from chaos.schedule import Event, Kind
from chaos.second_server import SecondServer
from chaos.world import World
from testbed import faults
from testbed.fault_proxy import FaultProxy
from testbed.postgres import PostgresCluster
from testbed.postgres_install import postgres_user

_RETRY_SECONDS = 1.0  # the longest pause before another try is 0.5 s: see the stage's settings
_FILLER = ".chaos-filler"  # a name that begins with a dot is no file of the archive
_ON_PUT: dict[Kind, Callable[[Event], faults.Fault]] = {
    Kind.RESET_IN_PUT: lambda event: faults.ResetInBody(1 + int(event.strength * 100_000)),
    Kind.RESET_AFTER_PUT: lambda _: faults.ResetAfter(),
    Kind.ERROR_IN_200: lambda _: faults.ERROR_IN_200,
    Kind.ANSWER_500_AFTER: lambda _: faults.AnswerAfter(500),
    Kind.STORE_HALF: lambda _: faults.StoreHalf(),
    Kind.STORE_FLIPPED: lambda _: faults.StoreFlipped(),
    Kind.SWALLOW: lambda _: faults.Swallow(),
}
_LIES = (faults.StoreHalf(), faults.StoreFlipped(), faults.Swallow())
_ON_PIECE: dict[Kind, Callable[[Event], faults.Fault]] = {
    Kind.PIECE_TWICE: lambda _: faults.ResetAfter(),
    Kind.PIECE_LATE: lambda event: faults.DeliverLate(event.seconds),
    Kind.PIECE_LIE: lambda event: _LIES[int(event.strength * len(_LIES))],
    Kind.PIECE_CUT: lambda event: faults.ResetInBody(1 + int(event.strength * 10_000)),
}
_ON_GET: dict[Kind, Callable[[Event], faults.Fault]] = {
    Kind.FLIP_READ: lambda _: faults.Flip(),
    Kind.CUT_READ: lambda event: faults.Truncate(event.strength),
}
_ON_ANY: dict[Kind, Callable[[Event], faults.Fault]] = {
    Kind.ANSWER_503: lambda _: faults.SLOW_DOWN,
    Kind.ANSWER_429: lambda _: faults.TOO_MANY_REQUESTS,
    Kind.ANSWER_500: lambda _: faults.INTERNAL_ERROR,
    Kind.LATENCY: lambda event: faults.Delay(event.seconds),
}


class Player:
    """Plays one schedule. ``planted``: names whose wrong content it put into the spool; ``played``: the events."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(world.schedule.seed)  # noqa: S311 - a schedule must be the same each time
        self._ends: list[tuple[float, Callable[[], object]]] = []
        self._rules: list[tuple[str, faults.Rule]] = []
        self._troubles = world.shipping.troubles
        self.backups = Backups(world)
        self.damage = Damage(world)
        self.second = SecondServer(world)
        self.planted: set[str] = set()
        self.played: list[Event] = []

    def play(self, at_the_end: Callable[[], object] = lambda: None) -> None:
        """Do every event at its time, end it at its end, and return when no fault is left.

        ``at_the_end`` is called a while after all events have begun, with the faults that are not over yet.
        """
        begun = time.monotonic()
        try:
            for event in self._world.schedule.events:
                self._wait_until(begun + event.at_seconds)
                self._do(event)
                self.played.append(event)
            after_seconds = self._world.schedule.lost_after_seconds or 0.0
            self._wait_until(begun + self._world.schedule.seconds + after_seconds)
            at_the_end()
        finally:
            self.calm()

    def _wait_until(self, moment: float) -> None:
        while True:
            self._ends.sort(key=lambda end: end[0])
            due = min([moment, *(end[0] for end in self._ends[:1])])
            time.sleep(max(0.0, due - time.monotonic()))
            if not self._ends or self._ends[0][0] > moment:
                return
            self._ends.pop(0)[1]()

    def calm(self) -> None:
        """End every fault that is still there."""
        while self._ends:
            self._ends.pop(0)[1]()
        self._note_hits()
        for proxy in self._world.stage.proxies.values():
            proxy.clear()
        self._world.offset_file.unlink(missing_ok=True)

    def _end_in(self, seconds: float, end: Callable[[], object]) -> None:
        self._ends.append((time.monotonic() + seconds, end))

    def _do(self, event: Event) -> None:
        if event.store is not None:
            self._trouble_store(event, self._world.stage.proxies[event.store])
            return
        if event.kind in _BY_HAND:
            _BY_HAND[event.kind](self, event)
            return
        match event.kind:
            case Kind.KILL_RUN:
                self._world.archiving.kill_run()
            case Kind.KILL_POSTGRES | Kind.KILL_ALL:
                self._kill_postgres(with_run=event.kind is Kind.KILL_ALL)
            case Kind.PROMOTION:
                self._promote(crashed=event.strength < 0.5)
            case Kind.COPY_ARCHIVES:
                self.second.archive_into_spool()
            case Kind.TWO_PROMOTIONS:
                self.second.promote_beside(lambda: self._promote(crashed=event.strength < 0.5))
            case Kind.KILL_DAEMON | Kind.KILL_CODE_SERVER | Kind.HOME_LOST:
                self._trouble_dagster(event)
            case Kind.BACK_UP | Kind.BACK_UP_TWICE | Kind.BACK_UP_STALL:
                self._back_up(event)
            case Kind.CLOCK_STEP:
                self._world.offset_file.write_text(f"{(event.strength - 0.5) * 2 * 86400 * 3:.0f}")
                self._end_in(event.seconds, lambda: self._world.offset_file.unlink(missing_ok=True))
            case Kind.CATALOG_LOST:
                self._lose_catalog()

    # The stores

    def _trouble_store(self, event: Event, proxy: FaultProxy) -> None:
        kind = event.kind
        if kind is Kind.EXPIRE_DAMAGED:
            self.damage.expire_while_damaged(proxy.upstream, event.strength)
        elif kind in _ON_PUT:
            self._add(proxy, _ON_PUT[kind](event), event, method="PUT")
        elif kind in _ON_PIECE:
            self._add(proxy, _ON_PIECE[kind](event), event, method="PUT", key="/tail/")
        elif kind in _ON_GET:
            self._add(proxy, _ON_GET[kind](event), event, method="GET", key="/wal/")
        elif kind in _ON_ANY:
            self._add(proxy, _ON_ANY[kind](event), event)
        elif kind is Kind.KILL_STORE:
            proxy.upstream.kill()
            self._end_outage_in(event, lambda: proxy.upstream.is_running or proxy.upstream.start())
        else:
            (proxy.down if kind is Kind.REFUSE else proxy.blackhole)()
            self._end_outage_in(event, proxy.up)

    def _end_outage_in(self, event: Event, end: Callable[[], object]) -> None:
        trouble = self._trouble(event.store)
        trouble.__enter__()

        def end_it() -> None:
            end()
            trouble.__exit__(None, None, None)

        self._end_in(event.seconds, end_it)

    def _add(self, proxy: FaultProxy, fault: faults.Fault, event: Event, **which: str) -> None:
        nth = 1 + int(event.strength * 3)
        self._rules.append((proxy.upstream.name, proxy.add(fault, nth=nth, times=event.times, **which)))

    @property
    def requests_hit(self) -> int:
        """The number of requests that met a fault."""
        return sum(rule.hits for _, rule in self._rules)

    def _note_hits(self) -> None:
        """Remember each request that met a fault as a trouble of its store."""
        for store, rule in self._rules:
            seconds = rule.fault.seconds if isinstance(rule.fault, faults.Delay) else 0.0
            for moment in rule.hit_at:
                self._troubles.add(moment, moment + seconds + _RETRY_SECONDS, store)

    @contextlib.contextmanager
    def _trouble(self, store: str | None = None) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self._troubles.add(begin, time.monotonic() + _RETRY_SECONDS, store)

    # The shipper

    def _kill_shipper(self, event: Event) -> None:
        """Kill it at once, or as soon as a store has been sent another piece."""
        proxies = self._world.stage.proxies.values()
        before = sum(map(_pieces_sent, proxies))
        deadline = time.monotonic() + event.seconds
        while event.strength > 0.3 and time.monotonic() < deadline and sum(map(_pieces_sent, proxies)) == before:
            time.sleep(0.005)
        self._world.shipping.kill()

    def _freeze_shipper(self, event: Event) -> None:
        thaw = self._world.shipping.freeze()
        trouble = self._trouble()
        trouble.__enter__()

        def end_it() -> None:
            thaw()
            trouble.__exit__(None, None, None)

        self._end_in(event.seconds, end_it)

    # The servers

    def _kill_postgres(self, *, with_run: bool) -> None:
        with self._trouble():
            self._world.cluster.kill()
            if with_run:
                self._world.archiving.kill_run()
            self._world.cluster.start()

    def _promote(self, *, crashed: bool) -> None:
        """End the timeline as a restore would: recover from pg_wal alone and open on a new one."""
        with self._trouble():
            self._end_timeline(self._world.cluster, crashed=crashed)

    def _end_timeline(self, cluster: PostgresCluster, *, crashed: bool) -> None:
        if crashed:
            cluster.kill()
        else:
            cluster.stop()
        signal_file = cluster.pgdata / "recovery.signal"
        signal_file.touch()
        os.chown(signal_file, postgres_user().uid, postgres_user().gid)
        cluster.settings["restore_command"] = "false"
        cluster.start(wait=False)
        cluster.wait_promoted()

    def _trouble_dagster(self, event: Event) -> None:
        archiving = self._world.archiving
        assert isinstance(archiving, DaemonArchiving)
        trouble = {
            Kind.KILL_DAEMON: archiving.kill_daemon,
            Kind.KILL_CODE_SERVER: archiving.kill_code_server,
            Kind.HOME_LOST: archiving.lose_home,
        }
        trouble[event.kind](event.seconds)

    def _back_up(self, event: Event) -> None:
        """Start a base backup, and kill one of three at some moment; or two at once; or one that stands still."""
        if event.kind is Kind.BACK_UP_STALL:
            self.backups.stall(lose_lease=event.strength < 0.5)
            return
        taking = self.backups.begin()
        if event.kind is Kind.BACK_UP_TWICE:
            self.backups.begin()
        elif event.strength < 1 / 3:
            self._end_in(event.seconds, lambda: self.backups.kill(taking))

    def _lose_catalog(self) -> None:
        archiving = self._world.archiving
        if isinstance(archiving, CommandArchiving):
            with archiving.standing_still():
                self._remove_catalog()
            return
        archiving.kill_run()
        self._remove_catalog()

    def _remove_catalog(self) -> None:
        for path in (self._world.folder / "state").glob("catalog.sqlite*"):
            path.unlink(missing_ok=True)

    # The spool

    def _fill_disk(self, event: Event) -> None:
        filler = _disk_of(event.kind, self._world) / _FILLER
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        self._end_in(event.seconds, lambda: filler.unlink(missing_ok=True))

    def _fill_staging(self, event: Event) -> None:
        """Fill the disk to which a base backup with tablespaces writes, before it looks or while it writes."""
        self.backups.begin()
        tars = self._world.staging / "tars"
        deadline = time.monotonic() + event.seconds
        while event.strength < 0.7 and not tars.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._fill_disk(event)

    def _put(self, name: str, data: bytes) -> None:
        """Put a whole file into the spool at once, unless PostgreSQL's own file of that name is there."""
        temporary = self._world.spool / f".chaos-{name}"
        with contextlib.suppress(OSError):  # the disk may be full, or the name in use
            temporary.write_bytes(data)
            os.link(temporary, self._world.spool / name)
        temporary.unlink(missing_ok=True)

    def _duplicate(self, event: Event) -> None:
        for name in self._some(self._world.archived(), event.times):
            self._put(name, (self._world.pg_wal / name).read_bytes())

    def _plant_impostor(self, _event: Event) -> None:
        """Put other content under an archived name into the spool, which must not have the right file any more."""
        for name in self._some(self._world.archived(), 1):
            self._put_impostor(name)

    def _put_impostor(self, name: str) -> None:
        data = bytearray((self._world.pg_wal / name).read_bytes())
        data[len(data) // 2] ^= 1
        if name.endswith((".history", ".backup")):
            data += b"\n"
        self.planted.add(name)
        self._put(name, bytes(data))

    def _plant_half(self, event: Event) -> None:
        """Put half of the current segment under its name, as a copy leaves it when a crash cuts it off."""
        name = self._world.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
        data = (self._world.pg_wal / name).read_bytes()
        self.planted.add(name)
        self._put(name, data[: int(len(data) * max(0.01, event.strength * 0.9))])

    def _hold_back(self, event: Event) -> None:
        """Move the oldest waiting file out of the spool, and back after others were archived."""
        waiting = self._world.spooled()
        if not waiting:
            return
        name = waiting[0]
        held = self._world.spool / f".chaos-held-{name}"
        with contextlib.suppress(FileNotFoundError):  # the archiver released it just now
            (self._world.spool / name).rename(held)
            self._end_in(event.seconds, lambda: self._bring_back(held, name))

    def _bring_back(self, held: Path, name: str) -> None:
        if not (self._world.spool / name).exists():
            held.rename(self._world.spool / name)
        else:
            held.unlink()

    def _some(self, names: set[str], count: int) -> list[str]:
        there = sorted(name for name in names if (self._world.pg_wal / name).is_file())
        return self._rng.sample(there, min(count, len(there)))


def _pieces_sent(proxy: FaultProxy) -> int:
    return sum(request.method == "PUT" and "/tail/" in request.target for request in proxy.requests)


def _disk_of(kind: Kind, world: World) -> Path:
    disks = {Kind.SPOOL_FULL: world.spool, Kind.QUARANTINE_FULL: world.quarantine, Kind.STAGING_FULL: world.staging}
    return disks[kind]


_BY_HAND: dict[Kind, Callable[[Player, Event], None]] = {
    Kind.KILL_SHIPPER: Player._kill_shipper,
    Kind.FREEZE_SHIPPER: Player._freeze_shipper,
    Kind.SPOOL_FULL: Player._fill_disk,
    Kind.QUARANTINE_FULL: Player._fill_disk,
    Kind.STAGING_FULL: Player._fill_staging,
    Kind.DUPLICATE: Player._duplicate,
    Kind.IMPOSTOR: Player._plant_impostor,
    Kind.HALF_FILE: Player._plant_half,
    Kind.HOLD_BACK: Player._hold_back,
}
