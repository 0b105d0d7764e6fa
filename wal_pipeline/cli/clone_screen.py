"""Shows on the terminal how a clone comes to stand: its plan and the progress of its restore."""

from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.restore_progress import RestoreScreen
from wal_pipeline.commands.restore.perform import RestoreResult
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult
from wal_pipeline.text import counted, size


class CloneScreen(RestoreScreen):
    """Prints the plan on stdout, and shows the progress on stderr. The result is printed by the command."""

    def __init__(self, cluster: str, *, as_json: bool) -> None:
        super().__init__(cluster, plan_only=False, as_json=as_json)

    def planned(self, prepared: PreparedRestore) -> None:
        """Print the plan."""
        self.expect(prepared)
        if not self.as_json:
            print_line(clone_plan_text(prepared))

    def ended(self, prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> None:  # noqa: ARG002
        """Leave the progress as it is."""
        self.show_nothing()


def clone_plan_text(prepared: PreparedRestore) -> str:
    """Return the plan as a few lines. Where it needs no disk, the clone goes onwards with the files that it has."""
    plan = prepared.plan
    wal = f"{counted(len(plan.wal), 'segment')} of WAL"
    base = f"{size(prepared.download_bytes)}, and {wal}" if prepared.disk else f"no base backup, at most {wal}"
    rows = [
        ("as of", f"{plan.asked}{'' if plan.asked.inclusive else ', just before it'}"),
        *(("base backup", one.backup.title) for one in plan.chain),
        ("download", base),
        ("folder", str(prepared.request.pgdata.parent)),
        *(
            ("disk", f"{need.folder}: {size(need.needed_bytes)} of {size(need.free_bytes)} free")
            for need in prepared.disk
        ),
        ("server", f"PostgreSQL {prepared.binaries.major} in {prepared.binaries.bindir}, user id {prepared.user.uid}"),
        *(("note", note) for note in prepared.notes),
    ]
    head = f"Clone of cluster '{prepared.layout.cluster}' (system identifier {plan.system_identifier})"
    return "\n".join([head, *(f"  {name:<15} {text}" for name, text in rows)])
