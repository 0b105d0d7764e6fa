"""Prints the status on one screen."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wal_pipeline.archive.alerts import Severity
from wal_pipeline.archive.restore_time.words import forecast_sentence
from wal_pipeline.cli.printing import typed
from wal_pipeline.commands.health.answer import (
    end_text,
    gaps_text,
    names_text,
    recovery_answer,
    rpo_text,
    store_name,
)
from wal_pipeline.commands.health.facts import HealthFacts, StoreFacts
from wal_pipeline.commands.health.shipping import shipping_sentence
from wal_pipeline.commands.status.status import ArchiveStatus, Problem, Rating
from wal_pipeline.commands.status.window_line import Cell, axis_of, draw
from wal_pipeline.text import counted, length, moment_text, size

_COLOURS = {Rating.OK: "green", Rating.WARNING: "yellow", Rating.CRITICAL: "red", Rating.UNKNOWN: "dim"}
_MARKS = {Rating.OK: "●", Rating.WARNING: "▲", Rating.CRITICAL: "■", Rating.UNKNOWN: "○"}  # also without colours
_SEVERITIES = {Severity.CRITICAL: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_CELLS = {
    Cell.NOTHING: "dim",
    Cell.WINDOW: "green",
    Cell.PAST_GAP: "yellow",
    Cell.GAP: "bold red",
    Cell.BACKUP: "bold cyan",
}
_MOST_PROBLEMS = 8
_PICTURE_WIDTH = 60


def print_screen(status: ArchiveStatus, console: Console | None = None) -> None:
    """Print everything on one screen."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a pipe has no width: nothing is cut off
    console.print(_head(status))
    if status.facts.pause is not None:
        console.print(Text(f"PAUSED  {status.facts.pause.describe()}", style="bold yellow"))
    _print_answer(console, status)
    console.print()
    console.print(_metrics(status))
    console.print()
    for line in _windows(status, min(_PICTURE_WIDTH, max(20, console.width - 60))):
        console.print(line, soft_wrap=not console.is_terminal)
    console.print()
    console.print(_details(status))
    _print_problems(console, status)


def _head(status: ArchiveStatus) -> Text:
    facts = status.facts
    head = Text()
    head.append(f"{facts.cluster}", style="bold")
    head.append("  ")
    head.append(f" {status.verdict.value.upper()} ", style=f"reverse bold {_COLOURS[status.verdict]}")
    head.append(f"  {moment_text(facts.at)} UTC", style="dim")
    return head


def _print_answer(console: Console, status: ArchiveStatus) -> None:
    """Print first what somebody who was woken up asks first."""
    facts = status.facts
    answer = Text(recovery_answer(facts), style="bold" if status.can_recover else "bold red")
    console.print(answer, soft_wrap=not console.is_terminal)  # a terminal would break a line in mid-word
    if not status.can_recover and facts.files and not facts.windows.backups:
        console.print(typed("type 'wal-pipeline backup' to take a base backup"), style="red")


def _metrics(status: ArchiveStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("metric", "now", "goal", ""):
        table.add_column(title, no_wrap=title != "now", overflow="fold")
    for metric in status.metrics:
        colour = _COLOURS[metric.verdict]
        verdict = Text(_MARKS[metric.verdict], style=colour)
        table.add_row(metric.name, Text(metric.shown, style=colour), metric.goal, verdict)
    return table


def _windows(status: ArchiveStatus, width: int) -> Iterator[Text]:
    facts = status.facts
    axis = axis_of(facts.windows, facts.at)
    begin, end = f"{axis.begin_at:%m-%d %H:%M}", "now"
    ruler = begin + " " * max(1, width - len(begin) - len(end)) + end
    yield Text.assemble(("recovery  ", "bold"), (ruler, "dim"), ("  to", "dim"))
    for store in (None, *facts.windows.stores):
        line = Text(f"{store_name(store):<10}")
        for cell in draw(facts.windows, store, axis, width, facts.reaches):
            line.append(cell.value, style=_CELLS[cell])
        line.append("  ")
        line.append_text(_end(facts, store))
        if facts.windows.gaps.get(store):
            style = "bold red" if facts.windows.open_gaps(store) else "yellow"
            line.append(f"  gaps: {gaps_text(facts, store)}", style=style)
        yield line
    yield _legend()


def _end(facts: HealthFacts, store: str | None) -> Text:
    window = facts.windows.main(store)
    if window is None:
        return Text("nothing can be restored", style="red")
    return Text(f"{end_text(window)}, RPO {rpo_text(facts.reaches.get(store))}")


def _legend() -> Text:
    marks = (
        (Cell.WINDOW, " can be restored  "),
        (Cell.BACKUP, " base backup  "),
        (Cell.GAP, " gap  "),
        (Cell.PAST_GAP, " past gap"),
    )
    parts = (part for cell, said in marks for part in ((cell.value, _CELLS[cell]), (said, "dim")))
    return Text.assemble(" " * 10, *parts)


def _details(status: ArchiveStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(status):
        table.add_row(name, text)
    return table


def _rows(status: ArchiveStatus) -> Iterator[tuple[str, str]]:
    facts, point = status.facts, status.point
    yield "RPO now", _rpo(status)
    rto = ", ".join(f"{store} {length(seconds)}" for store, seconds in point.rto_seconds.items())
    yield "RTO measured", rto or "no drill yet"
    yield from _predicted(facts)
    yield "shipping", shipping_sentence(facts.shipping)
    yield "spool", _spool(facts)
    yield "base backup", _backup(facts)
    yield "drill", ", ".join(_drill(store, facts.at) for store in facts.stores)
    ratio = _ratio(facts)
    yield "archive", f"{facts.files} files, {size(facts.wal_bytes)} of WAL{ratio}"
    yield "cluster", f"system identifier {facts.windows.system_identifier or 'not known yet'}"
    if facts.server.error is not None:
        yield "server", facts.server.error
    for note in facts.windows.notes:
        yield "note", note


def _predicted(facts: HealthFacts) -> Iterator[tuple[str, str]]:
    """Yield how long a restore from each store would take; one line where it is not known of any, for one reason."""
    sentences = {store: forecast_sentence(one, facts.at) for store, one in facts.restore_times.items()}
    if all(one.seconds is None for one in facts.restore_times.values()) and len(set(sentences.values())) == 1:
        yield "RTO predicted", next(iter(sentences.values()))
        return
    for store, sentence in sentences.items():
        yield f"RTO from {store}", sentence


def _rpo(status: ArchiveStatus) -> str:
    """Return what would be lost if the server were lost now, and what else tells how fresh the archive is."""
    reach, unarchived = status.point.reach, status.point.unarchived_bytes
    if reach is None:
        return "nothing can be recovered" if status.facts.files else "not known: this host has no records"
    parts = [rpo_text(reach) + (f" ({reach.unknown})" if reach.unknown else "")]
    if reach.last_commit_age_seconds is not None:
        parts.append(f"last commit {length(reach.last_commit_age_seconds)} ago")
    if unarchived:
        parts.append(f"{size(unarchived)} of WAL not archived yet")
    return "; ".join(parts)


def _ratio(facts: HealthFacts) -> str:
    stored = max((store.wal_bytes for store in facts.stores), default=0)
    return f", stored at {facts.wal_bytes / stored:.1f} to 1" if stored and facts.wal_bytes else ""


def _spool(facts: HealthFacts) -> str:
    spool = facts.spool
    if spool is None:
        return "PG_WAL_ARCHIVE_DIR is not set on this host"
    if spool.error is not None:
        return spool.error
    disk = f", {size(facts.disks[0].free_bytes)} free" if facts.disks else ""
    if not spool.files and not spool.growing:
        return f"empty{disk}"
    oldest = "" if spool.oldest_at is None else f", the oldest for {length(facts.at - spool.oldest_at)}"
    quarantined = f", {len(spool.quarantined)} in quarantine" if spool.quarantined else ""
    return f"{spool.files} files, {size(spool.size_bytes)}{oldest}{quarantined}{disk}"


def _backup(facts: HealthFacts) -> str:
    if not facts.windows.backups:
        return "none"
    newest = max(facts.windows.backups, key=lambda one: one.finished_at)
    on = names_text(sorted(facts.windows.holders[newest.backup_id]))
    age = length(facts.at - newest.finished_at)
    damaged = f", DAMAGED PAGES in {counted(len(newest.damaged_pages), 'file')}" if newest.damaged_pages else ""
    warned = f", {counted(len(newest.warnings), 'warning')}" if newest.warnings else ""
    note = f" ({newest.note})" if newest.note else ""
    kind = f"{newest.kind.value}, {newest.method.value}"
    return f"{kind}, {age} old, on {on}{note}{damaged}{warned}; {len(facts.windows.backups)} in all"


def _drill(store: StoreFacts, now: datetime) -> str:
    drill = store.last_drill
    if drill is None:
        return f"{store.store} never"
    ended_at = drill.finished_at or drill.started_at
    return f"{store.store} {'passed' if drill.ok else 'FAILED'} {length(now - ended_at)} ago"


def _print_problems(console: Console, status: ArchiveStatus) -> None:
    if not status.problems:
        return
    console.print()
    for problem in status.problems[:_MOST_PROBLEMS]:
        console.print(_problem(problem))
    if len(status.problems) > _MOST_PROBLEMS:
        more = f"and {len(status.problems) - _MOST_PROBLEMS} more: see 'wal-pipeline alerts'"
        console.print(typed(more), style="dim")


def _problem(problem: Problem) -> Text:
    style = "dim" if problem.acknowledged else _SEVERITIES[problem.severity]
    since = f" (since {problem.since_at:%m-%d %H:%M})" if problem.since_at else ""
    known = " [acknowledged]" if problem.acknowledged else ""
    name = f"{problem.kind.value} {problem.subject}".strip()
    return Text.assemble(
        (f"{problem.severity.value:<9}", style), (name, "bold"), typed(f": {problem.message}{since}{known}")
    )
