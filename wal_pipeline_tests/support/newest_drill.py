"""Runs a drill of a history's newest base backup, to the end of its archive."""

from datetime import UTC, datetime
from random import Random
from typing import Any

from wal_pipeline.commands.drill.drill import Drill
from wal_pipeline.commands.drill.result import DrillOptions, DrillResult
from wal_pipeline_tests.support.restore_history import History


class AlwaysLast(Random):
    """Draws the last item: the newest base backup, and the end of the archive."""

    def choice(self, seq: Any) -> Any:
        """Return the last."""
        return seq[-1]


def drill_newest(history: History) -> DrillResult:
    """Restore the newest base backup from r2, and return what came of it."""
    return Drill(
        store=history.pipeline.stores["r2"],
        layout=history.pipeline.layout(int(history.cluster.system_identifier)),
        identities=(),
        options=DrillOptions(history.folder / "drill", bindir=history.install.bin_folder, amcheck=False),
        clock=lambda: datetime.now(UTC),
        random=AlwaysLast(),
        host="db1",
    ).run()
