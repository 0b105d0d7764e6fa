"""Keeps the last look at a server in a file, for a process that begins when the server is lost."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

from wal_pipeline.host.durable_file import write_whole
from wal_pipeline.postgres.flushed_wal import FlushedWal
from wal_pipeline.wal.lsn import Lsn

_NAME: Final = ".last-look.json"


def keep_look(folder: Path, look: FlushedWal) -> None:
    """Write the look into a folder. Raises: OSError."""
    values = {**asdict(look), "lsn": str(look.lsn), "at": look.at.isoformat()}
    write_whole(json.dumps(values).encode(), folder / _NAME, durable=False)


def kept_look(folder: Path) -> FlushedWal | None:
    """Return the look that was kept; None where there is none, or none that can be read."""
    try:
        values = json.loads((folder / _NAME).read_text())
        at, lsn = datetime.fromisoformat(values.pop("at")), Lsn.parse(values.pop("lsn"))
        return FlushedWal(**values, at=at, lsn=lsn)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
