"""Defines the settings of the accident desk: where clones stand."""

import os
from pathlib import Path

from wal_pipeline.shipping_settings import ShippingSettings


class AccidentSettings(ShippingSettings):
    """``clone_folder`` is the folder below which clones stand; None: a default by the user who makes them."""

    clone_folder: Path | None = None

    def folder_of_clones(self, state_folder: Path) -> Path:
        """Return the folder below which clones stand; PostgreSQL's user must be able to enter root's."""
        default = Path("/var/tmp") if os.geteuid() == 0 else state_folder  # noqa: S108 - refused if it is another's
        return self.clone_folder or default / f"wal-pipeline-clones-{self.cluster}"
