"""Knows where each file of a base backup lies on the disk of a restored cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wal_pipeline.commands.restore.untar import HELD_BACK, PG_CONTROL, safe_name

TABLESPACES: Final = "pg_tblspc"


@dataclass(frozen=True, slots=True)
class FilePlaces:
    """The data directory, and the folders of its tablespaces by oid. No link is needed to reach them.

    ``global/pg_control`` has another name until all files are proven, so that no server can start there.
    """

    pgdata: Path
    spaces: Mapping[int, Path] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[tuple[str, Path], ...]:
        """The folders in which files lie, each with the beginning that its files' names have."""
        return (("", self.pgdata), *((f"{TABLESPACES}/{oid}/", folder) for oid, folder in self.spaces.items()))

    def path(self, name: str) -> str:
        """Return where the file of that name lies.

        Raises: RestoreError for a name that would lie elsewhere than below these folders.
        """
        safe = safe_name(name)
        if safe == PG_CONTROL:
            return f"{self.pgdata}/{HELD_BACK}"
        folder, _, rest = safe.partition("/")
        if folder == TABLESPACES:
            oid, _, rest = rest.partition("/")
            space = self.spaces.get(int(oid)) if oid.isascii() and oid.isdigit() else None
            if space is not None:
                return f"{space}/{rest}" if rest else str(space)
        return f"{self.pgdata}/{safe}"
