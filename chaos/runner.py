"""Runs schedules one after the other, and reports the outcome of each."""

import platform
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chaos.checks import NotDrainedError, compare, drain, misplaced, wait_until_archiving
from chaos.losing import PROMISED_SECONDS, HostLoss, lose_host, wait_until_calm
from chaos.pieces import compare_pieces
from chaos.play import Player
from chaos.restoring import RestoreFailedError, back_up, restore
from chaos.schedule import Schedule
from chaos.stage import Stage
from chaos.windows import window_problems
from chaos.world import World, make_world
from wal_pipeline.wal.lsn import Lsn

_SHIPPER_SECONDS = 60.0


@dataclass(slots=True)
class Outcome:
    """The outcome of one schedule. ``problems``: a text for each rule that does not hold."""

    seed: int
    files_checked: int = 0
    commits: int = 0
    requests_hit: int = 0
    lost: int = 0
    gaps: int = 0
    early_opens: int = 0
    base_backups: int = 0
    expiries: int = 0
    restored: str | None = None
    cut_off: bool = False
    host_loss: HostLoss | None = None
    pieces_checked: int = 0
    shipper_starts: int = 0
    seconds: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return the outcome in one line."""
        restored = f", restored while: {self.restored}" if self.restored else ""
        return (
            f"seed {self.seed}: {self.files_checked} copies of {self.files_checked // 2} files, "
            f"{self.commits} commits, {self.base_backups} base backups{restored}{self._lost()}, {self.seconds:.1f} s: "
            f"{'; '.join(self.problems) or 'nothing lost'}"
        )

    def _lost(self) -> str:
        if self.host_loss is None:
            return ""
        found, loss = self.host_loss, self.host_loss.loss
        excuse = f", {found.excuse}" if found.excuse else ""
        again = ", recovery started again without the fault" if found.started_again else ""
        return (
            f", host lost with {len(loss.missing)} of {loss.acknowledged} commits, the oldest "
            f"{loss.oldest_age_seconds:.2f} s old (at most {found.owed_seconds:.2f}{excuse}){again}, all WAL was there "
            f"up to {Lsn(found.end_lsn)} with {found.segments_behind} segments to archive"
        )


@dataclass(slots=True)
class Report:
    """All outcomes together. ``slack_seconds`` were added to what a lost host may cost."""

    outcomes: list[Outcome] = field(default_factory=list)
    full_disks: bool = True
    slack_seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, and nothing failed."""
        return bool(self.outcomes) and not any(outcome.problems for outcome in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        events = sum((outcome.events for outcome in self.outcomes), Counter[str]())
        return {
            "schedules": len(self.outcomes),
            "files_checked": self._sum("files_checked"),
            "lost": self._sum("lost"),
            "gaps": self._sum("gaps"),
            "early_opens": self._sum("early_opens"),
            "failed_seeds": [outcome.seed for outcome in self.outcomes if outcome.problems],
            "seeds": [outcome.seed for outcome in self.outcomes],
            "commits": self._sum("commits"),
            "requests_hit": self._sum("requests_hit"),
            "base_backups": self._sum("base_backups"),
            "expiries_while_damaged": self._sum("expiries"),
            "restores": sum(outcome.restored is not None for outcome in self.outcomes),
            "restored_while": dict(Counter(found.restored for found in self.outcomes if found.restored)),
            "restores_cut_off": self._sum("cut_off"),
            **self._shipping(),
            "seconds": round(self._sum("seconds"), 1),
            "skipped": [] if self.full_disks else ["full disks: small file systems cannot be mounted here"],
            "events": dict(sorted(events.items())),
            "problems": {str(found.seed): found.problems for found in self.outcomes if found.problems},
            "machine": f"{platform.platform()}, Python {platform.python_version()}",
        }

    def _shipping(self) -> dict[str, Any]:
        """Return what the loss of the host has cost: in all schedules, and in those that nothing excused."""
        losses = [outcome.host_loss for outcome in self.outcomes if outcome.host_loss is not None]
        strict = [found.loss.oldest_age_seconds for found in losses if found.excuse is None]
        return {
            "hosts_lost": len(losses),
            "ship_promise_seconds": PROMISED_SECONDS + self.slack_seconds,
            "hosts_lost_without_excuse": len(strict),
            "rpo_seconds_max_without_excuse": round(max(strict, default=0.0), 2),
            "rpo_seconds_max": round(max((found.loss.oldest_age_seconds for found in losses), default=0.0), 2),
            "commits_acknowledged_before_loss": sum(found.loss.acknowledged for found in losses),
            "commits_missing_after_loss": sum(len(found.loss.missing) for found in losses),
            "commits_late": sum(found.late_seconds > 0 for found in losses),
            "recoveries_started_again": sum(found.started_again for found in losses),
            "half_wholes_beside_pieces": sum(found.had_half_whole for found in losses),
            "commits_lost_in_reach": sum(len(found.in_reach) for found in losses),
            "commits_never_made": sum(len(found.loss.never_made) for found in losses),
            "excuses": dict(Counter(found.excuse for found in losses if found.excuse)),
            "pieces_checked": self._sum("pieces_checked"),
            "shipper_starts": self._sum("shipper_starts"),
        }

    def _sum(self, name: str) -> Any:
        return sum(getattr(outcome, name) for outcome in self.outcomes)


def run_all(stage: Stage, schedules: Sequence[Schedule], report: Report) -> Iterator[Outcome]:
    """Run each schedule and yield its outcome. After a failure, which the outcome names, the next one follows."""
    for schedule in schedules:
        outcome = run_one(stage, schedule, slack_seconds=report.slack_seconds)
        report.outcomes.append(outcome)
        yield outcome


def run_one(stage: Stage, schedule: Schedule, *, slack_seconds: float = 0.0) -> Outcome:
    """Play one schedule and check the archive after it. ``slack_seconds``: see ``lose_host``."""
    begun = time.monotonic()
    outcome = Outcome(schedule.seed)
    try:
        with make_world(stage, schedule) as world:
            _run(world, outcome, slack_seconds)
    except Exception as error:  # noqa: BLE001 - what goes wrong in one schedule is its result
        outcome.problems.append(
            f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
        )
        _mend(stage)
    outcome.seconds = round(time.monotonic() - begun, 2)
    return outcome


def _run(world: World, outcome: Outcome, slack_seconds: float) -> None:
    first_segment = back_up(world)
    player = Player(world)
    try:
        _play(world, player, outcome, slack_seconds)
        _check(world, player, first_segment, outcome)
    finally:
        player.second.stop()
        outcome.shipper_starts = world.shipping.starts


def _play(world: World, player: Player, outcome: Outcome, slack_seconds: float) -> None:
    def lose() -> None:
        with _noted(outcome):
            outcome.host_loss = lose_host(world, player, slack_seconds)
            outcome.problems += outcome.host_loss.problems()

    world.load.start()
    try:
        wait_until_archiving(world)
        if not world.shipping.wait_until_it_runs(_SHIPPER_SECONDS):
            outcome.problems.append(f"no shipper runs after {_SHIPPER_SECONDS:.0f} s")
        in_trouble = world.schedule.lost_after_seconds is not None
        player.play(lose if in_trouble else lambda: None)
        outcome.problems += player.backups.settle()
        outcome.problems += player.damage.settle()
        if not in_trouble:
            wait_until_calm(world)
            lose()
        world.load.stop()
    finally:
        world.load.stop()
        player.backups.stop()
        player.damage.stop()
        outcome.expiries = player.damage.expiries
        outcome.requests_hit = player.requests_hit
        outcome.events.update(event.kind.value for event in player.played)


def _check(world: World, player: Player, first_segment: str, outcome: Outcome) -> None:
    second = player.second
    second.let_the_original_go_on()
    outcome.commits, outcome.base_backups = len(world.load.acknowledged), 1 + player.backups.taken
    with _noted(outcome):
        drain(world)
        outcome.problems += second.settle()
    outcome.problems += player.backups.problems()

    def may_be_gone(name: str) -> bool:
        return player.damage.may_be_gone(name) or player.backups.may_be_gone(name, first_segment)

    copies = compare(world, may_be_gone, also=second.archived)
    outcome.files_checked, outcome.lost, outcome.gaps = copies.checked, len(copies.lost), len(copies.gaps)
    outcome.problems += copies.lost
    outcome.problems += [f"segment {number} is in a gap" for number in copies.gaps]
    outcome.problems += misplaced(world, player.planted)
    with _noted(outcome):
        outcome.problems += window_problems(world, outcome.base_backups)
        restored = restore(world, second.main_timeline)
        outcome.restored, outcome.cut_off = world.schedule.recovery.value, restored.cut_off
        outcome.early_opens = int(restored.early_open)
    pieces = compare_pieces(world)
    outcome.pieces_checked = pieces.checked
    outcome.problems += pieces.wrong
    outcome.problems += world.shipping.problems()
    if outcome.early_opens:
        outcome.problems.append("a restore opened before the end of the archive")


@contextmanager
def _noted(outcome: Outcome) -> Iterator[None]:
    """Add a failure to the problems, and continue."""
    try:
        yield
    except (NotDrainedError, RestoreFailedError) as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")


def _mend(stage: Stage) -> None:
    """Start the stores again where the schedule left them down."""
    for proxy in stage.proxies.values():
        proxy.clear()
        if not proxy.upstream.is_running:
            proxy.upstream.start()
