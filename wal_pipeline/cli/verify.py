"""``wal-pipeline verify`` compares the stores' copies with each other and with the catalog, and repairs bad ones."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.text import counted, moment_json, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wal_pipeline.commands.verify.results import Verification

_SHOWN = 50


@click.command("verify")
@click.option("--deep", is_flag=True, help="Read, open and hash the copies, not only compare names and sizes.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help="With --deep: read only this share of the bytes, those that were read longest ago first.  [default: all]",
)
@click.option("--repair", is_flag=True, help="Refill what is missing or damaged from a good copy on another store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def verify_command(context: Context, deep: bool, share: float | None, repair: bool, as_json: bool) -> int:
    """Compare what the stores hold with each other and with the catalog; with --deep read it back too.

    A copy that is bad on every store is never touched. Pieces of an open segment are looked at too; --repair removes a
    damaged one only where its bytes are proven to be somewhere else. Exit code 0 only where every store answered and
    all is right.
    """
    from wal_pipeline.wiring.verify import verifier

    if share is not None and not deep:
        raise click.UsageError("--share is for --deep")
    done = verifier(context.pipeline).verify(share=(share or 1.0) if deep else None, repair=repair)
    if as_json:
        click.echo(json.dumps(verification_as_json(done), indent=1))
    else:
        for line in _lines(done):
            print_line(line)
    return 0 if done.is_right else 1


def verification_as_json(done: "Verification") -> dict[str, Any]:
    """Return a verification as JSON values."""
    repairs = {(one.fault.store, one.fault.item): one for one in done.repairs}
    faults = []
    for fault in done.faults:
        repair = repairs.get((fault.store, fault.item))
        faults.append(
            {
                "store": fault.store,
                "system_identifier": str(fault.item.system_identifier),
                "kind": fault.item.kind.value,
                "name": fault.item.name,
                "fault": fault.kind.value,
                "message": fault.message,
                "lost": fault.item in done.lost,
                "repaired_from": repair.source if repair is not None else None,
                "repair_error": repair.error if repair is not None else None,
            }
        )
    return {
        "begun_at": moment_json(done.begun_at),
        "deep": done.is_deep,
        "right": done.is_right,
        "silent": dict(done.silent),
        "notes": list(done.notes),
        "breaks": list(done.breaks),
        "stores": {
            name: {
                "copies": tally.items,
                "stored_bytes": tally.stored_bytes,
                "read": tally.read,
                "read_bytes": tally.read_bytes,
                "pending": tally.pending,
                "unrecorded": tally.unrecorded,
            }
            for name, tally in done.tallies.items()
        },
        "faults": faults,
        "pieces": {
            "stores": {name: asdict(tally) for name, tally in done.piece_tallies.items()},
            "faults": [
                {
                    "store": fault.store,
                    "key": fault.key,
                    "fault": fault.kind.value,
                    "message": fault.message,
                    "outcome": fault.outcome,
                    "removed": fault.is_removed,
                }
                for fault in done.piece_faults
            ],
            "holes": list(done.holes),
        },
        "relations": {
            "stores": {name: asdict(tally) for name, tally in done.list_tallies.items()},
            "faults": [{**asdict(fault), "kind": fault.kind.value} for fault in done.list_faults],
        },
    }


def _lines(done: "Verification") -> "Iterator[str]":
    for name, tally in done.tallies.items():
        if name in done.silent:
            yield f"{name}: not verified: {done.silent[name]}"
            continue
        read = f", {tally.read} read ({size(tally.read_bytes)})" if tally.read else ""
        pending = f", {tally.pending} on their way" if tally.pending else ""
        yield f"{name}: {tally.items} copies, {size(tally.stored_bytes)}{read}{pending}"
        if tally.unrecorded:
            yield (
                f"{name}: {len(tally.unrecorded)} copies are not in the catalog, first '{tally.unrecorded[0]}'; "
                "'wal-pipeline catalog rebuild' makes the records again"
            )
    repaired = {(one.fault.store, one.fault.item): one for one in done.repairs}
    for fault in done.faults[:_SHOWN]:
        repair = repaired.get((fault.store, fault.item))
        outcome = "" if repair is None else f"; refilled from {repair.source}" if repair.error is None else ""
        failed = f"; could not be refilled: {repair.error}" if repair is not None and repair.error else ""
        lost = "; NO STORE HAS A GOOD COPY" if fault.item in done.lost else ""
        yield f"{fault.kind.value}: {fault.message}{outcome}{failed}{lost}"
    if len(done.faults) > _SHOWN:
        yield f"and {len(done.faults) - _SHOWN} more: see --json"
    yield from _piece_lines(done)
    yield from _list_lines(done)
    yield from (f"break: {said}" for said in done.breaks)
    yield from (f"note: {note}" for note in done.notes)
    yield _verdict(done)


def _piece_lines(done: "Verification") -> "Iterator[str]":
    for name, tally in done.piece_tallies.items():
        if tally.pieces and name not in done.silent:
            read = f", {tally.read} read ({size(tally.read_bytes)})" if tally.read else ""
            superseded = f", {tally.superseded} superseded" if tally.superseded else ""
            pieces = counted(tally.pieces, "piece")
            yield f"{name}: {pieces} of open segments, {size(tally.stored_bytes)}{read}{superseded}"
    for fault in done.piece_faults[:_SHOWN]:
        yield f"{fault.kind.value}: {fault.message}" + (f"; {fault.outcome}" if fault.outcome is not None else "")
    if len(done.piece_faults) > _SHOWN:
        yield f"and {len(done.piece_faults) - _SHOWN} more pieces: see --json"
    yield from (f"hole: {said}" for said in done.holes)


def _list_lines(done: "Verification") -> "Iterator[str]":
    for name, tally in done.list_tallies.items():
        if tally.lists and name not in done.silent:
            read = f", {tally.read} read ({size(tally.read_bytes)})" if tally.read else ""
            yield f"{name}: {counted(tally.lists, 'list')} of relations, {size(tally.stored_bytes)}{read}"
    for fault in done.list_faults[:_SHOWN]:
        copied = "" if fault.repaired_from is None else f"; copied from {fault.repaired_from}"
        failed = "" if fault.repair_error is None else f"; could not be copied: {fault.repair_error}"
        yield f"{fault.kind.value}: {fault.message}{copied}{failed}"


def _verdict(done: "Verification") -> str:
    if not done.is_right:
        return "not all is right"
    stored = any(tally.items for tally in done.tallies.values())
    return "all is right" if stored else "nothing is stored: there was nothing to compare"
