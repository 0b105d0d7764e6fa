"""``wal-pipeline list`` lists the files of the WAL archive, or the base backups, and their copies."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from wal_pipeline.archive.records import CopyStatus
from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import make_console, typed
from wal_pipeline.text import moment_text, size

if TYPE_CHECKING:
    from rich.table import Table

    from wal_pipeline.catalog.catalog import Catalog
    from wal_pipeline.commands.list_files import ListedBackup, ListedFile

_COLOURS = {
    CopyStatus.VERIFIED: "green",
    CopyStatus.PENDING: "yellow",
    CopyStatus.FAILED: "red",
    CopyStatus.MISSING: "red",
    CopyStatus.DAMAGED: "red",
}


@click.command("list")
@click.option(
    "--status", type=click.Choice([status.value for status in CopyStatus]), help="Only files with such a copy."
)
@click.option("--store", help="Only files with a recorded copy on this store; with --status, with such a copy there.")
@click.option(
    "--since", metavar="WHEN", help="Only files spooled since: 2026-11-22T17:45:00Z (UTC), or 30m, 2h, 7d ago."
)
@click.option("--base-backups", is_flag=True, help="List the base backups, with what PostgreSQL said of them.")
@click.option("--tail", is_flag=True, help="List the pieces of the open segment that each store has.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@pass_context
def list_command(
    context: Context,
    *,
    status: str | None,
    store: str | None,
    since: str | None,
    base_backups: bool,
    tail: bool,
    as_json: bool,
) -> int:
    """List the files of the WAL archive by this host's records, with the records of their copies."""
    from wal_pipeline.catalog.files import CopyFilter
    from wal_pipeline.commands.list_files import list_files, listed_file_as_json, parse_moment
    from wal_pipeline.errors import SettingsError

    pipeline = context.pipeline
    if tail:
        if status or store or since or base_backups:
            raise SettingsError("--tail lists all pieces, without --status, --store, --since and --base-backups")
        context.require_records()
        return _list_tail(pipeline.catalog, list(pipeline.settings.stores), as_json=as_json)
    if base_backups:
        if status or store or since:
            raise SettingsError("--base-backups lists all of them, without --status, --store and --since")
        context.require_records()
        return _list_backups(pipeline.catalog, as_json=as_json)
    names = list(pipeline.settings.stores)
    if store is not None and store not in names:
        raise SettingsError(f"'{store}' is not a store, expected one of {', '.join(names)}")
    only = CopyFilter(
        status=CopyStatus(status) if status else None,
        store=store,
        since=parse_moment(since, pipeline.clock()) if since else None,
    )
    context.require_records()
    found = list_files(pipeline.catalog, only)
    if as_json:
        click.echo(json.dumps([listed_file_as_json(item) for item in found], indent=1))
        return 0
    make_console().print(_table(found, names))
    _print_errors(found)
    return 0


def _list_backups(catalog: "Catalog", *, as_json: bool) -> int:
    from wal_pipeline.commands.list_files import list_backups, listed_backup_as_json

    found = list_backups(catalog)
    if as_json:
        click.echo(json.dumps([listed_backup_as_json(item) for item in found], indent=1))
        return 0
    console = make_console()
    for item in found:
        for line, style in _backup_lines(item):
            console.print(line, style=style, markup=False, soft_wrap=True)
    console.print(f"base backups: {len(found)}")
    return 0


def _backup_lines(item: "ListedBackup") -> Iterator[tuple[str, str]]:
    """Yield the lines of a base backup, each with its style: an id takes half a terminal, so no table has room."""
    from wal_pipeline.commands.health.answer import names_text

    backup = item.backup
    yield f"{backup.backup_id}  {backup.kind.value}, {backup.method.value}", "bold"
    sizes = f"{size(backup.size_bytes)}, stored as {size(backup.stored_size_bytes)}"
    yield f"  finished {moment_text(backup.finished_at)} UTC, {sizes}", ""
    for (words, colour), stores in _by_state(item).items():
        yield f"  {names_text(stores)}: {words}", colour
    if not item.copies:
        yield "  on no store", "red"
    if backup.parent_id is not None:
        yield f"  built on {backup.parent_id}", ""
    if backup.note:
        yield f"  note: {backup.note}", ""
    for pages in backup.damaged_pages:
        yield f"  damaged pages: {pages}", "red"
    for warning in backup.warnings:
        yield f"  warning: {warning}", "yellow"


def _by_state(item: "ListedBackup") -> dict[tuple[str, str], list[str]]:
    """Return the stores by the words for their copy and its colour. A copy that is not good is not restorable."""
    found: dict[tuple[str, str], list[str]] = {}
    for store, copy in item.copies.items():
        is_restorable = copy.status is CopyStatus.VERIFIED and copy.restorable_at is not None
        words = f"{copy.status.value}, {'restorable' if is_restorable else 'not restorable'}"
        found.setdefault((words, _COLOURS[copy.status]), []).append(store)
    return found


def _list_tail(catalog: "Catalog", names: Sequence[str], *, as_json: bool) -> int:
    from rich.table import Table

    from wal_pipeline.commands.list_files import list_pieces_of_tails, listed_piece_as_json

    found = list_pieces_of_tails(catalog, names)
    if as_json:
        click.echo(json.dumps([listed_piece_as_json(item) for item in found], indent=1))
        return 0
    caption = f"pieces: {len(found)}, as the shipper recorded them"
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for title in ("store", "segment", "from", "to", "end LSN", "flushed (UTC)", "last commit (UTC)", "stored"):
        table.add_column(title, no_wrap=title == "segment", overflow="fold")
    for item in found:
        piece = item.recorded.piece
        table.add_row(
            item.store,
            piece.segment.name,
            f"{piece.from_offset:08X}",
            f"{piece.to_offset:08X}",
            str(piece.end_lsn),
            moment_text(piece.flushed_at),
            moment_text(piece.last_commit_at),
            f"{item.recorded.encoding.size_bytes / 1024:.0f} KiB",
        )
    make_console().print(table)
    return 0


def _table(found: "Sequence[ListedFile]", stores: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, caption=f"files: {len(found)}", caption_justify="left")
    for title in ("file", "spooled (UTC)", "last commit (UTC)", *stores):
        table.add_column(title, no_wrap=title == "file", overflow="fold")
    for item in found:
        file = item.file
        states = (_state(item, store) for store in stores)
        table.add_row(file.name, moment_text(file.spooled_at), moment_text(file.last_commit_at), *states)
    return table


def _state(item: "ListedFile", store: str) -> str:
    copy = item.copies.get(store)
    if copy is None:
        return "-"
    stored = (
        f" {copy.encoding.size_bytes / 1024:.0f} KiB" if copy.encoding and copy.status is CopyStatus.VERIFIED else ""
    )
    return f"[{_COLOURS[copy.status]}]{copy.status.value}[/]{stored}"


def _print_errors(found: "Sequence[ListedFile]") -> None:
    from rich.text import Text

    console = make_console()
    for item in found:
        for copy in item.copies.values():
            if copy.last_error is not None:
                said = typed(f"{item.file.name}: {copy.last_error} (tries: {copy.tries})")
                console.print(Text(said, style="red"), soft_wrap=True)
