"""Shows on the terminal how a clone comes to stand: its plan and the progress of its restore."""

from wal_pipeline.cli.restore_progress import RestoreScreen
from wal_pipeline.commands.restore.perform import RestoreResult
from wal_pipeline.commands.restore.prepare import PreparedRestore
from wal_pipeline.commands.restore.start import RecoveryResult


class CloneScreen(RestoreScreen):
    """Prints the plan on stdout, and shows the progress on stderr. The result is printed by the command."""

    def __init__(self, cluster: str, *, as_json: bool) -> None:
        super().__init__(cluster, plan_only=False, as_json=as_json)

    def ended(self, prepared: PreparedRestore, result: RestoreResult, recovery: RecoveryResult | None) -> None:  # noqa: ARG002
        """Leave the progress as it is."""
        self.show_nothing()
