"""Says in words which databases a restore brings back, and what becomes of the others."""

from typing import Any, Final

from wal_pipeline.commands.restore.chosen.databases import ChosenDatabases
from wal_pipeline.commands.restore.chosen.finish import FinishedDatabases, drop_lines
from wal_pipeline.text import counted, size

_SHOWN: Final = 10


def chosen_text(chosen: ChosenDatabases) -> str:
    """Return which databases come, which do not, and what that saves, for the plan."""
    only = f"only {_listed(chosen.names)}, and postgres and the templates"
    if not chosen.left_out.names:
        return f"{only}; all files are fetched, and the other databases are dropped after the start"
    left_out = f"{counted(len(chosen.left_out.names), 'other')} left out: {_listed(chosen.left_out_names)}"
    return f"{only}; {left_out}; {size(chosen.saved_bytes)} are not fetched"


def chosen_values(chosen: ChosenDatabases | None) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "only_databases": [] if chosen is None else list(chosen.names),
        "left_out_databases": [] if chosen is None else list(chosen.left_out_names),
        "saved_bytes": 0 if chosen is None else chosen.saved_bytes,
    }


def finished_lines(chosen: ChosenDatabases, finished: FinishedDatabases | None) -> list[str]:
    """Return what became of the other databases, or what a person types to drop them."""
    if finished is not None and finished.trouble is None:
        dropped = f"; dropped: {_listed(finished.dropped)}" if finished.dropped else ""
        return [
            f"Databases: {_listed(finished.kept)}{dropped}",
            *(f"Not dropped, and closed for everybody: {name} ({why})" for name, why in finished.refused.items()),
        ]
    lines = [] if finished is None or finished.trouble is None else [f"WARNING: {finished.trouble.message}"]
    if not chosen.left_out.names:
        return [*lines, "Drop the databases that you do not need when the server is open: all files were restored."]
    return [
        *lines,
        f"The files of {_listed(chosen.left_out_names)} are without content, and the server lets nobody connect to "
        "these databases. When its recovery has ended, type as a superuser in the database postgres:",
        *(f"  {line}" for line in drop_lines(chosen)),
    ]


def finished_values(chosen: ChosenDatabases | None, finished: FinishedDatabases | None) -> dict[str, Any]:
    """Return what became of the other databases, for JSON."""
    found = finished or FinishedDatabases()
    open_lines = () if chosen is None or (finished is not None and finished.trouble is None) else drop_lines(chosen)
    return {
        "kept_databases": list(found.kept),
        "dropped_databases": list(found.dropped),
        "closed_databases": dict(found.refused),
        "drop_them_with": list(open_lines),
    }


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
