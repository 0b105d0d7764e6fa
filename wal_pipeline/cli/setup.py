"""``wal-pipeline setup`` finds the faults of the server's archiving, and mends them."""

import json
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import make_console, print_line, typed

if TYPE_CHECKING:
    from wal_pipeline.commands.setup.findings import Finding
    from wal_pipeline.commands.setup.proof import ArchivingProver, Progress, Proof
    from wal_pipeline.commands.setup.setup import SetupReport
    from wal_pipeline.wiring.pipeline import Pipeline

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("setup")
@click.option(
    "--apply", "apply_it", is_flag=True, help="Change the server's settings, then prove that archiving works."
)
@click.option("--replace", is_flag=True, help="With --apply: replace an archiver that writes to somewhere else.")
@click.option(
    "--wait", default=60.0, show_default=True, metavar="SECONDS", help="Let each half of the proof take so long."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--print-systemd", is_flag=True, help="Print the lines that let the systemd units write to the settings' folders."
)
@pass_context
def setup_command(
    context: Context, *, apply_it: bool, replace: bool, wait: float, as_json: bool, print_systemd: bool
) -> int:
    """Look at the PostgreSQL server and the spool, and print each fault with the lines that mend it.

    Exit code 0 where archiving is set up (and, with --apply, was proved to work), 1 where something is left to do.
    """
    from wal_pipeline.commands.setup.findings import Level
    from wal_pipeline.commands.setup.setup import SetupReport, apply_setup, look_at_archiving
    from wal_pipeline.wiring.check import also_for, wanted_archiving

    pipeline = context.pipeline
    if print_systemd:
        return _print_systemd(pipeline)
    wanted = wanted_archiving(pipeline, replace_foreign=replace)
    also = also_for(pipeline, with_stores=True, shipping_fault=Level.WARNING)
    if apply_it:
        prover = _prover(pipeline, wait, lambda line: print_line(line, err=True))
        report = apply_setup(pipeline.server, wanted, prover.prove, also)
    else:
        plan = look_at_archiving(pipeline.server, wanted, also)
        report = SetupReport(plan, plan)
    if as_json:
        click.echo(json.dumps(report_as_json(report)))
    else:
        _print(report, applied=apply_it)
    return 0 if report.ok else 1


def _print_systemd(pipeline: "Pipeline") -> int:
    """Print the drop-in file of the units, and warn of what they cannot see; the server is not asked."""
    from wal_pipeline.commands.setup.systemd import drop_in, hidden_paths
    from wal_pipeline.wiring.check import used_paths

    used = used_paths(pipeline)
    print_line(drop_in(used).rstrip("\n"))
    missing = [
        f"{one.variable}: '{one.path}' is not there: make it before the unit starts"
        for one in used
        if not one.path.exists()
    ]
    warnings = [*hidden_paths(used), *missing]
    for line in warnings:
        print_line(f"WARNING: {line}", err=True)
    return 1 if warnings else 0


def report_as_json(report: "SetupReport") -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "ok": report.ok,
        "findings": [_finding_as_json(finding) for finding in report.after.all_findings],
        "applied": [change.line for change in report.applied],
        "spool_made": report.made_spool,
        "restart_line": report.after.restart_line,
        "proof": None if report.proof is None else _proof_as_json(report.proof),
    }


def _prover(pipeline: "Pipeline", wait_seconds: float, progress: "Progress") -> "ArchivingProver":
    """Return the prover. Opens the stores before the server is changed: missing settings shall show first."""
    from wal_pipeline.commands.copies.find import which_stores_have
    from wal_pipeline.commands.setup.proof import ArchivingProver
    from wal_pipeline.errors import SpoolBusyError
    from wal_pipeline.stores.cluster_store import cluster_stores
    from wal_pipeline.wiring.archive_push import archive_now

    places = cluster_stores(pipeline.stores, pipeline.layout(pipeline.server.system_identifier()))

    def drain_spool() -> None:
        try:
            for _event in archive_now(pipeline, heed_pause=False):
                pass
        except SpoolBusyError:
            progress("another process archives from the spool now")

    return ArchivingProver(
        server=pipeline.server,
        spool=pipeline.spool.folder,
        find_copies=lambda name: which_stores_have(places, name),
        archive_now=drain_spool,
        wait_seconds=wait_seconds,
        progress=progress,
    )


def _finding_as_json(finding: "Finding") -> dict[str, Any]:
    mending = list(finding.mending)
    return {"name": finding.name, "status": finding.status.value, "message": finding.message, "mending": mending}


def _proof_as_json(proof: "Proof") -> dict[str, Any]:
    return {
        "ok": proof.ok,
        "segment": proof.segment,
        "archived_seconds": proof.archived_seconds,
        "copies": dict(proof.copies),
        "missing": list(proof.missing),
        "message": proof.message,
    }


def _print(report: "SetupReport", *, applied: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found"):
        table.add_column(heading, overflow="fold")
    for finding in report.after.all_findings:
        status = finding.status.value
        table.add_row(Text(status, style=_COLOURS[status]), finding.name, Text(typed(finding.message)))
    console.print(table)
    for line in _next_lines(report, applied=applied):
        print_line(line)


def _next_lines(report: "SetupReport", *, applied: bool) -> list[str]:
    """Return the changes and the lines that are left to type, indented and whole, so that they can be copied."""
    lines: list[str] = []
    if report.applied:
        lines += ["", "Changed:", *(f"  {change.line}" for change in report.applied)]
    after = report.after
    if left := _lines_left(report):
        lines += ["", "To mend it:", *(f"  {line}" for line in left)]
    if after.changes and not applied:
        lines += ["", "'wal-pipeline setup --apply' does the SQL for you."]
    if after.restart_line is not None:
        again = ", then type 'wal-pipeline setup --apply' again to prove it" if applied else " after it"
        lines += ["", f"PostgreSQL must be restarted{again}:", f"  {after.restart_line}"]
    return lines + _proof_lines(report)


def _lines_left(report: "SetupReport") -> list[str]:
    """Return the lines that mend what is left, each once, SQL first. The restart stands below, by itself."""
    after = report.after
    changes = [change.line for change in after.changes]
    wrong = [finding for finding in after.all_findings if finding.status.value != "ok"]
    others = dict.fromkeys(line for finding in wrong for line in finding.lines if line != after.restart_line)
    return [*changes, *(["SELECT pg_reload_conf();"] if changes else []), *others]


def _proof_lines(report: "SetupReport") -> list[str]:
    proof = report.proof
    if proof is None:
        return []
    if not proof.ok:
        return ["", f"Not proved: {proof.message}"]
    stores = ", ".join(f"{store} after {seconds:.1f} s" for store, seconds in proof.copies.items())
    return [
        "",
        f"Proved: segment {proof.segment} was archived after {proof.archived_seconds:.1f} s and is on {stores}.",
    ]
