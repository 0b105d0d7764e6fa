"""``wal-pipeline expire`` shows what each store keeps and loses by the retention rule, and removes what may go."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import make_console, print_line
from wal_pipeline.text import counted, moment_json, size

if TYPE_CHECKING:
    from rich.table import Table

    from wal_pipeline.archive.retention.plan import Expired, Kept, RetentionPlan
    from wal_pipeline.commands.expire.expire import Expiry, StoreExpiry
    from wal_pipeline.commands.expire.steps import Removed


@click.command("expire")
@click.option("--confirm", is_flag=True, help="Do it. Without this, only the plan is printed.")
@click.option("--trust-clock", is_flag=True, help="Go on although nothing was archived for longer than the window.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every file and why.")
@pass_context
def expire_command(context: Context, confirm: bool, trust_clock: bool, as_json: bool) -> int:
    """Show what each store keeps and loses, and why; with --confirm remove what may go.

    The rule is WAL_PIPELINE_RETENTION_DAYS and WAL_PIPELINE_MIN_BASE_BACKUPS. Exit code 1 where a store did not
    answer, refused something, or would be left without a base backup that can be restored; where a store has damage
    that no verification has settled ('wal-pipeline verify --repair'), as nothing expires from it until then; also where
    everything in the archive is older than the window, which may only mean that this host's clock is wrong.
    """
    from wal_pipeline.wiring.expire import expirer

    made = expirer(context.pipeline)
    done = made.expire(trust_clock=trust_clock) if confirm else made.plan()
    if as_json:
        click.echo(json.dumps(expiry_as_json(done)))  # in one line: Python is slow to indent
    else:
        console = make_console()
        for store in done.stores:
            console.print(_table(store))
        for line in _lines(done):
            print_line(line)
    return 0 if done.is_complete else 1


def expiry_as_json(done: "Expiry") -> dict[str, Any]:
    """Return an expiry as JSON values: every file and base backup with its reason."""
    return {
        "planned_at": moment_json(done.planned_at),
        "confirmed": done.confirmed,
        "complete": done.is_complete,
        "retention_days": done.rule.window.days,
        "min_base_backups": done.rule.minimum_backups,
        "silent": dict(done.silent),
        "notes": list(done.notes),
        "stores": [_store_as_json(store) for store in done.stores],
    }


def _store_as_json(store: "StoreExpiry") -> dict[str, Any]:
    plan, removed = store.plan.plan, store.removed
    found: dict[str, Any] = {
        "store": store.plan.store,
        "system_identifier": str(store.plan.layout.system_identifier),
        "refusal": store.plan.refusal,
        "hidden_bytes": store.plan.hidden.total_bytes,
        "problems": list(store.problems),
        "damage": list(store.plan.damage),
        "notes": list(store.plan.notes),
        "keep": [],
        "expire": [],
    }
    if plan is not None:
        found |= {
            "window_starts_at": moment_json(plan.window_starts_at),
            "kept_bytes": plan.kept_bytes,
            "freed_bytes": plan.freed_bytes,
            "warnings": list(plan.warnings),
            "keep": [{"name": one.name, "kind": one.kind.value, **_values(one)} for one in plan.keep],
            "expire": [{"name": one.name, "step": one.step.value, **_values(one)} for one in plan.expire],
        }
    if removed is not None:
        found["removed"] = {
            "files": len(removed.files),
            "base_backups": list(removed.base_backups),
            "versions": removed.versions,
            "freed_bytes": removed.freed_bytes,
            "pieces": removed.pieces,
            "pieces_bytes": removed.pieces_bytes,
            "lists": removed.lists,
            "locked": list(removed.locked),
        }
    return found


def _values(one: "Kept | Expired") -> dict[str, Any]:
    """Return bytes and reason, and how many pieces it is where it is any."""
    found: dict[str, Any] = {"bytes": one.stored_bytes, "reason": one.reason}
    return found | ({"pieces": one.pieces} if one.pieces else {})


def _table(store: "StoreExpiry") -> "Table":
    from rich.table import Table

    plan = store.plan.plan
    title = f"{store.plan.store}, system identifier {store.plan.layout.system_identifier}"
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for name in ("", "what", "count", "size", "why"):
        table.add_column(name, justify="right" if name in ("count", "size") else "left", overflow="fold")
    if plan is not None:
        for row in (*_rows("stays", plan.keep), *_rows("may go", plan.expire)):
            table.add_row(*row)
    return table


def _rows(word: str, entries: "Iterable[Kept | Expired]") -> Iterator[tuple[str, str, str, str, str]]:
    """Yield one row for each reason: base backups by name, files and pieces counted."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        kind = _kind(entry)
        key = (f"base backup {entry.name}" if kind == "base backup" else kind, entry.reason)
        counts[key] += 0 if getattr(entry, "step", None) == "backup_objects" else entry.pieces or 1
        sizes[key] += entry.stored_bytes
    for (what, reason), count in counts.items():
        yield word, what, str(count), size(sizes[what, reason]), reason


def _kind(entry: "Kept | Expired") -> str:
    word = str(getattr(entry, "kind", None) or getattr(entry, "step", ""))
    return {"wal_file": "files", "pieces": "pieces", "relations": "lists of relations"}.get(word, "base backup")


def _lines(done: "Expiry") -> Iterator[str]:
    from wal_pipeline.commands.expire.expire import CLOCK_HINT

    yield from (f"note: {note}" for note in done.notes)
    for store in done.stores:
        yield from _store_lines(store)
    for name, message in done.silent.items():
        yield f"{name} is left out: {message}"
    if done.doubt is not None:
        yield f"HINT: {CLOCK_HINT}"
    if not done.confirmed:
        yield "this is a plan: nothing was removed; 'wal-pipeline expire --confirm' does it"


def _store_lines(store: "StoreExpiry") -> Iterator[str]:
    plan, removed, name = store.plan.plan, store.removed, store.plan.store
    if plan is not None:
        yield f"{name}: {size(plan.kept_bytes)} stay, {size(plan.freed_bytes)} may go{_planned_pieces(plan)}"
        yield from (f"warning: {warning}" for warning in plan.warnings)
    yield from (f"note: {note}" for note in store.plan.notes)
    hidden = store.plan.hidden
    if hidden.total_bytes:
        objects = len(hidden.size_bytes)
        yield f"{name}: {size(hidden.total_bytes)} in {objects} objects are hidden versions, and billed"
    if hidden.error is not None:
        yield f"{name}: hidden versions could not be listed: {hidden.error}"
    if removed is not None:
        yield (
            f"{name}: removed {len(removed.files)} files and {len(removed.base_backups)} base backups, "
            f"{removed.versions} versions, {size(removed.freed_bytes)}"
            f"{_removed_pieces(removed)}{_removed_lists(removed)}"
        )
    if store.unfinished is not None and store.unfinished.objects:
        yield f"{name}: removed {store.unfinished.objects} objects of base backups without a manifest"
    yield from (f"PROBLEM: {problem}" for problem in store.problems)


def _planned_pieces(plan: "RetentionPlan") -> str:
    """Return how many pieces of open segments stay and may go; nothing where there are none."""
    found = [
        f"{counted(sum(one.pieces for one in some), 'piece')} ({size(sum(one.stored_bytes for one in some))}) {word}"
        for word, some in (("stay", _with_pieces(plan.keep)), ("may go", _with_pieces(plan.expire)))
        if some
    ]
    return f"; of these {', '.join(found)}" if found else ""


def _with_pieces(entries: "Iterable[Kept | Expired]") -> "list[Kept | Expired]":
    return [one for one in entries if one.pieces]


def _removed_pieces(removed: "Removed") -> str:
    return f", among them {counted(removed.pieces, 'piece')} ({size(removed.pieces_bytes)})" if removed.pieces else ""


def _removed_lists(removed: "Removed") -> str:
    return f", {counted(removed.lists, 'list')} of relations" if removed.lists else ""
