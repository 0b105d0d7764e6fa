"""Shows a rescue on the terminal: its plan, the restore's progress, its own steps, and what it brought."""

import json
from typing import Any

import click

from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.restore_progress import RestoreScreen
from wal_pipeline.cli.restore_text import plan_values
from wal_pipeline.commands.rescue.result import RescueEvents, RescueResult
from wal_pipeline.commands.rescue.run import Rescue
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.text import counted, moment_json, size


class RescueScreen(RestoreScreen, RescueEvents):
    """Prints the plan and the result on stdout, as text or one JSON object, and shows the progress on stderr."""

    def __init__(self, rescue: Rescue, *, as_json: bool) -> None:
        super().__init__(rescue.layout.cluster, plan_only=rescue.options.plan_only, as_json=as_json)
        self._rescue = rescue
        self._plan: dict[str, Any] = {}

    def planned(self, prepared: PreparedRestore) -> None:
        """Print the plan; as JSON only where there is nothing more to come."""
        self.expect(prepared)
        self._plan = rescue_plan_values(prepared, self._rescue)
        if not self.as_json:
            print_line(rescue_plan_text(prepared, self._rescue))
        elif self.plan_only:
            click.echo(json.dumps(self._plan))

    def step(self, name: str) -> None:
        """Show the step in place of the recovery."""
        self.show_step(name)

    def rescued(self, result: RescueResult) -> None:
        """Print the result."""
        self.show_nothing()
        if self.as_json:
            click.echo(json.dumps({**self._plan, **rescue_values(result)}))
        else:
            print_line(rescue_text(result))


def rescue_plan_text(prepared: PreparedRestore, rescue: Rescue) -> str:
    """Return the plan as a few lines."""
    plan, options = prepared.plan, rescue.options
    names = ", ".join(one.text for one in rescue.wanted) or "all tables"
    rows = [
        (
            "tables",
            f"{names} of {f'database {options.database!r}' if options.database else 'the database that has it'}",
        ),
        ("as of", f"{plan.asked}{'' if plan.asked.inclusive else ', just before it'}"),
        *(("base backup", one.backup.title) for one in plan.chain),
        ("download", f"{size(prepared.download_bytes)}, and {counted(len(plan.wal), 'segment')} of WAL"),
        ("scratch folder", f"{rescue.folder}, removed at the end"),
        *(
            ("disk", f"{need.folder}: {size(need.needed_bytes)} of {size(need.free_bytes)} free")
            for need in prepared.disk
        ),
        ("server", f"PostgreSQL {prepared.binaries.major} in {prepared.binaries.bindir}, user id {prepared.user.uid}"),
        ("to", _destination(rescue)),
        *(("note", note) for note in prepared.notes),
    ]
    head = f"Rescue from cluster '{rescue.layout.cluster}' (system identifier {plan.system_identifier})"
    return "\n".join([head, *(f"  {name:<15} {text}" for name, text in rows)])


def _destination(rescue: Rescue) -> str:
    if rescue.living is None:
        return f"the new file {rescue.options.output}"
    return f"{rescue.living.address}, schema {rescue.living.schema}, beside what is there"


def rescue_plan_values(prepared: PreparedRestore, rescue: Rescue) -> dict[str, Any]:
    """Return the plan for JSON."""
    kept = ("system_identifier", "encrypted", "target", "inclusive", "timeline", "base_backups", "wal")
    values = plan_values(prepared)
    return {
        **{name: values[name] for name in (*kept, "commit_at_least", "commit_at_most", "download_bytes")},
        "plan_notes": values["notes"],
        "folder": str(rescue.folder),
        "wanted": [one.text for one in rescue.wanted],
    }


def rescue_values(result: RescueResult) -> dict[str, Any]:
    """Return the result for JSON."""
    return {
        "database": result.database,
        "tables": [{"name": one.name, "rows": one.rows, "into": one.into} for one in result.tables],
        "rows": result.rows,
        "output": None if result.output is None else str(result.output),
        "into": result.into,
        "schema": result.schema,
        "downloaded_bytes": result.downloaded_bytes,
        "table_bytes": result.size_bytes,
        "dump_bytes": result.dump_bytes,
        "seconds": {name: round(seconds, 3) for name, seconds in result.seconds.items()},
        "reached_commit_at": moment_json(result.reached_commit_at),
        "reached_lsn": result.reached_lsn,
        "notes": list(result.notes),
    }


def rescue_text(result: RescueResult) -> str:
    """Return what was brought, and where it is now."""
    where = f"in {result.output}" if result.output is not None else f"in {result.into}"
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    reached = "no commit was replayed" if result.reached_commit_at is None else result.reached_commit_at.isoformat(" ")
    lines = [f"Rescued {counted(result.rows, 'row')} of database '{result.database}', {where}"]
    lines += [
        f"  {one.into or one.name}: {counted(one.rows, 'row')}, as counted on both sides" for one in result.tables
    ]
    lines += [f"  last replayed commit  {reached}", f"  seconds               {phases}"]
    lines += [f"  note                  {note}" for note in result.notes]
    return "\n".join(lines)
