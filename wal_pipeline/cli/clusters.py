"""Looks at several clusters, each by its settings file alone, and prints one line for each, the worst first."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from wal_pipeline.cli.printing import make_console
from wal_pipeline.commands.health.answer import end_text, rpo_text
from wal_pipeline.commands.health.facts import look_at_everything
from wal_pipeline.commands.health.no_records import has_records, no_records
from wal_pipeline.commands.status.as_json import check_line, status_as_json
from wal_pipeline.commands.status.status import ArchiveStatus, Rating, judge
from wal_pipeline.errors import WalPipelineError
from wal_pipeline.host.libpq_variables import CONNECTION_VARIABLES
from wal_pipeline.host.own_command import typeable
from wal_pipeline.settings import PREFIX, variable_names
from wal_pipeline.wiring.health import fact_sources, health_limits
from wal_pipeline.wiring.pipeline import Pipeline, open_pipeline
from wal_pipeline.wiring.settings_check import check_settings
from wal_pipeline.wiring.stores import missing_of

_AT_ONCE: Final = 8
_OF_THE_HOST: Final = ("HTTPS_PROXY", "NO_PROXY")
# What is not known may be the worst; it is not proven to be.
_WORST_FIRST: Final = (Rating.CRITICAL, Rating.UNKNOWN, Rating.WARNING, Rating.OK)
_COLOURS: Final = {Rating.OK: "green", Rating.WARNING: "yellow", Rating.CRITICAL: "bold red", Rating.UNKNOWN: "magenta"}
_NEVER_CUT: Final = 10_000
_MOST_KEPT: Final = 30  # of a column that is not the last: a file whose settings cannot be read is shown by its path
_PADDING: Final = 2
_LEAST_ROOM: Final = 10
_TITLES: Final = ("verdict", "cluster", "recoverable to (UTC)", "RPO", "needs a person")


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """One cluster's status, or the reason why nothing is known of it, with what to type where that is known."""

    env_file: Path
    name: str
    status: ArchiveStatus | None
    trouble: str | None = None
    way_out: str | None = None

    @property
    def rating(self) -> Rating:
        """The verdict. Where this host has no records only what is critical is known."""
        if self.status is None or (self.trouble is not None and self.status.verdict is not Rating.CRITICAL):
            return Rating.UNKNOWN
        return self.status.verdict

    @property
    def check_line(self) -> str:
        """The line of a Nagios plugin."""
        if self.status is not None and self.rating is not Rating.UNKNOWN:
            return check_line(self.status)
        return unknown_line(self.name, " ".join(filter(None, (self.trouble, self.way_out))))

    @property
    def values(self) -> dict[str, Any]:
        """The status as JSON values."""
        known = {"cluster": self.name} if self.status is None else status_as_json(self.status)
        more = {} if self.trouble is None else {"error": self.trouble, "hint": self.way_out, "can_recover": None}
        return {**known, **more, "env_file": str(self.env_file), "verdict": self.rating.value}


def look_at_clusters(env_files: Sequence[Path], *, ask_server: bool) -> list[ClusterLook]:
    """Look at each cluster at the same time, and return them, the worst first. A fault is a cluster's own line."""
    with _settings_of_files_alone(), ThreadPoolExecutor(_AT_ONCE) as pool:
        looks = list(pool.map(lambda file: _look(file, ask_server=ask_server), env_files))
    return sorted(looks, key=lambda look: (_WORST_FIRST.index(look.rating), look.name))


def print_clusters(looks: Sequence[ClusterLook]) -> None:
    """Print one line for each cluster. On a terminal the last column is cut at its edge; in a pipe nothing is."""
    console = make_console()
    if not console.is_terminal:
        console.width = _NEVER_CUT
    rows = [(look.rating.value.upper(), look.name, *_recoverable(look), _needs(look)) for look in looks]
    table = Table(box=None, pad_edge=False, padding=(0, _PADDING, 0, 0), header_style="dim")
    columns = list(zip(_TITLES, *rows, strict=True))
    widths = [min(max(map(cell_len, column)), _MOST_KEPT) for column in columns[:-1]]
    for title, width in zip(_TITLES[:-1], widths, strict=True):
        table.add_column(title, no_wrap=True, overflow="ellipsis", width=width)
    room = console.width - sum(width + _PADDING for width in widths)
    table.add_column(_TITLES[-1], no_wrap=True, overflow="ellipsis", max_width=max(room, _LEAST_ROOM))
    for look, (verdict, *texts) in zip(looks, rows, strict=True):
        table.add_row(Text(verdict, style=_COLOURS[look.rating]), *map(Text, texts))
    console.print(table)


def unknown_line(cluster: str, reason: str) -> str:
    """Return the line of a Nagios plugin that cannot tell."""
    return f"WAL-PIPELINE UNKNOWN - {cluster}: {' '.join(reason.replace('|', '/').split())}"


def not_known(pipeline: Pipeline, status: ArchiveStatus) -> WalPipelineError | None:
    """Return why the status says nothing of the archive: this host has no records of it; None where it has some."""
    if has_records(status.facts):
        return None
    settings = pipeline.settings
    return no_records(settings.cluster, missing_of(settings, settings.stores))


def _look(env_file: Path, *, ask_server: bool) -> ClusterLook:
    name = str(env_file)
    try:
        pipeline = open_pipeline(env_file, quiet=True)
        name = pipeline.settings.cluster
        check_settings(pipeline.settings)
        status = judge(look_at_everything(fact_sources(pipeline, ask_server=ask_server)), health_limits(pipeline))
        pipeline.record_requests()
        reason = not_known(pipeline, status)
    except WalPipelineError as error:
        return _unknown(env_file, name, None, error)
    except Exception as error:  # noqa: BLE001 - one cluster's fault must not hide the others
        return ClusterLook(env_file, name, None, f"{type(error).__name__}: {error}")
    return ClusterLook(env_file, name, status) if reason is None else _unknown(env_file, name, status, reason)


def _unknown(env_file: Path, name: str, status: ArchiveStatus | None, error: WalPipelineError) -> ClusterLook:
    hint = None if error.hint is None else typeable(error.hint, env_file)
    return ClusterLook(env_file, name, status, typeable(error.message, env_file), hint)


def _recoverable(look: ClusterLook) -> tuple[str, str]:
    if look.status is None or look.trouble is not None:
        return "not known", "not known"
    facts = look.status.facts
    window = facts.windows.main(None)
    return "nothing" if window is None else end_text(window), rpo_text(facts.reaches.get(None))


def _needs(look: ClusterLook) -> str:
    problems = [] if look.status is None else [one for one in look.status.problems if not one.acknowledged]
    said = [] if look.trouble is None else [look.trouble]
    said += [f"{one.kind.value} {one.subject}".strip() + f": {one.message}" for one in problems]
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    return " ".join(said[0].split()) + more if said else "nothing"


@contextmanager
def _settings_of_files_alone() -> Iterator[None]:
    """Take every setting out of the environment while the block runs: there it would hold for all clusters."""
    names = {name for names in variable_names().values() for name in names} | CONNECTION_VARIABLES
    ours = {name for name in os.environ if name.upper() in names or name.upper().startswith(PREFIX)}
    before: Mapping[str, str] = {name: os.environ[name] for name in ours if name.upper() not in _OF_THE_HOST}
    for name in before:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)
