"""Restores in a process of its own, which kills itself once a share of the bytes has come."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wal_pipeline.commands.restore.contents import find_system_identifier
from wal_pipeline.commands.restore.perform import RestoreCommand, RestoreEvents, perform_restore
from wal_pipeline.commands.restore.prepare import PreparedRestore, RestoreRequest, prepare_restore
from wal_pipeline.settings import load_settings
from wal_pipeline.wiring.pipeline import Pipeline


def prepared(environment: Mapping[str, str], pgdata: Path, **options: object) -> PreparedRestore:
    """Plan the restore of a copy, with its tablespaces beside the data directory, from the stores of these settings."""
    pipeline = Pipeline(load_settings(dict(environment)))
    stores = tuple(pipeline.stores.values())
    identifier = find_system_identifier(stores, pipeline.settings.prefix, pipeline.settings.cluster, None)
    request = RestoreRequest(
        pgdata,
        tablespace_root=pgdata.with_name(f"{pgdata.name}-spaces"),
        archiving=False,
        bindir=pipeline.settings.pgbindir,
    )
    layout, identities = pipeline.layout(identifier), pipeline.identities
    return prepare_restore(replace(request, **options), stores, layout, identities)  # type: ignore[arg-type]


class _Killed(RestoreEvents):
    """Ends the process without a word: nothing is tidied up."""

    def __init__(self, share: float, phase: str) -> None:
        self._share = share
        self._phase = phase
        self._left: float | None = None

    def phase(self, name: str) -> None:
        """Kill it at the beginning of a phase."""
        if name == self._phase:
            os.kill(os.getpid(), signal.SIGKILL)

    def will_fetch(self, count: int) -> None:
        """Note how much will come."""
        self._left = count * self._share

    def bytes_came(self, count: int) -> None:
        """Kill it where enough has come."""
        if self._left is not None:
            self._left -= count
            if self._left <= 0 and not self._phase:
                os.kill(os.getpid(), signal.SIGKILL)


def kill_restore(
    environment: Mapping[str, str], pgdata: Path, base_backup: str, *, share: float = 1.0, phase: str = ""
) -> None:
    """Begin a restore, and kill it when a share of the bytes has come, or at the beginning of a phase."""
    words = [sys.executable, "-m", __name__, str(pgdata), base_backup, str(share), phase]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**environment, "PATH": os.environ["PATH"]},
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


if __name__ == "__main__":
    _pgdata, _backup, _share, _phase = sys.argv[1:]
    _variables = {name: value for name, value in os.environ.items() if name != "PATH"}
    perform_restore(
        prepared(_variables, Path(_pgdata), base_backup=_backup),
        RestoreCommand(("false",)),
        _Killed(float(_share), _phase),
    )
