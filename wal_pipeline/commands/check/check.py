"""Checks whether archiving works now: the server, the spool and every store, each item by itself."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.commands.check.item import CheckItem, CheckReport, try_item
from wal_pipeline.commands.check.opened import NamedThings, check_named
from wal_pipeline.commands.check.own_files import check_catalog, check_lock, check_other_names
from wal_pipeline.commands.check.store import StoreCheck
from wal_pipeline.commands.setup.data_directory import judge_clone, with_data_directory
from wal_pipeline.commands.setup.findings import Finding, Level
from wal_pipeline.commands.setup.plan import WantedArchiving, plan_setup
from wal_pipeline.commands.setup.setup import MoreFindings
from wal_pipeline.commands.setup.spool import judge_spool, look_at_spool_access
from wal_pipeline.commands.setup.wal import look_at_wal
from wal_pipeline.errors import PostgresError, SpoolError
from wal_pipeline.postgres.server import BASIC_ARCHIVE, PostgresServer
from wal_pipeline.postgres.server_facts import ServerFacts, archiver_trouble
from wal_pipeline.spool import Spool
from wal_pipeline.stores.base import Store

_LEAST_FREE_SEGMENTS: Final = 64
_USUAL_SEGMENT_SIZE: Final = 16 * 2**20
_MAX_WAIT_SECONDS: Final = 3600.0


def check(
    server: PostgresServer,
    spool: Spool,
    stores: Mapping[str, Store],
    *,
    cluster_prefix: str,
    wanted: WantedArchiving,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    open_catalog: Callable[[], Catalog] | None = None,
    named: NamedThings | None = None,
    also: MoreFindings = lambda _: (),
) -> CheckReport:
    """Run every item, also after one failed. The small objects that it writes are removed.

    ``cluster_prefix`` begins the keys of the cluster's objects and ends in ``/``. ``named`` is all that the settings
    name besides. ``also`` looks at what base backups need.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(stores))) as pool:
        checks = [pool.submit(StoreCheck(store, cluster_prefix, now).run) for store in stores.values()]
        found, major = _server_and_spool(server, spool, wanted, now, also)
        items = [*found, *check_named(named or NamedThings(), server, major)]
        if open_catalog is not None:
            items.extend(check_catalog(open_catalog, spool))
        for future in checks:
            items.extend(future.result())
    return CheckReport(tuple(items))


def _server_and_spool(
    server: PostgresServer, spool: Spool, wanted: WantedArchiving, now: Callable[[], datetime], also: MoreFindings
) -> tuple[tuple[CheckItem, ...], int | None]:
    """Return the items, and the server's major version where it is known."""
    seen: list[ServerFacts] = []

    def connect() -> str:
        seen.append(server.facts())
        role = seen[0].role
        return f"connected as '{role.name}', system identifier {seen[0].system_identifier}"

    connected = try_item("server", connect)
    facts = seen[0] if seen else None
    findings = _findings(server, facts, spool, wanted)
    segment_size = facts.wal_segment_size if facts else _USUAL_SEGMENT_SIZE
    items = (
        connected,
        *(_item(finding) for finding in findings),
        *((try_item("archiver process", lambda: _archiver(facts)),) if facts else ()),
        try_item("spool: disk", lambda: _disk(spool, segment_size)),
        check_lock(spool),
        try_item("spool: waiting files", lambda: _waiting(spool, now())),
        check_other_names(lambda: spool.scan(now())),
        *(_item(finding) for finding in (also(facts) if facts else ())),
    )
    return items, facts.major_version if facts else None


def _findings(
    server: PostgresServer, facts: ServerFacts | None, spool: Spool, wanted: WantedArchiving
) -> tuple[Finding, ...]:
    """Judge the server and the folder; without the server's facts the folder alone."""
    if facts is None:
        return judge_spool(look_at_spool_access(spool.folder, None, None))
    access = look_at_spool_access(spool.folder, server, facts)
    wal = look_at_wal(server, facts, bindir=wanted.bindir)
    plan = plan_setup(facts, access, wanted, has_basic_archive=_library(server), wal=wal)
    clone = judge_clone(facts, wanted)
    return (*([] if clone is None else [clone]), *with_data_directory(plan, server, facts).findings)


def _library(server: PostgresServer) -> bool | None:
    try:
        return server.has_library(BASIC_ARCHIVE)
    except PostgresError:
        return None


def _item(finding: Finding) -> CheckItem:
    hint = "" if finding.status is Level.OK else " ".join(finding.mending)
    if finding.changes:
        hint = f"Type 'wal-pipeline setup --apply', or: {hint}"
    return CheckItem(finding.name, finding.status is not Level.PROBLEM, finding.message, hint)


def _archiver(facts: ServerFacts) -> str:
    trouble = archiver_trouble(facts.archiver) if facts.archiver_is_wanted else "archiving is off"
    if trouble is not None:
        raise PostgresError(trouble, hint="'wal-pipeline setup' shows what is wrong with the settings.")
    archiver = facts.archiver
    waiting = f", {archiver.ready_count} wait in pg_wal" if archiver.ready_count is not None else ""
    if archiver.last_archived_at is None:
        return f"nothing archived yet{waiting}"
    last = f"'{archiver.last_archived_wal}' at {archiver.last_archived_at:%Y-%m-%d %H:%M:%S%z}"
    return f"{archiver.archived_count} files archived, the last {last}{waiting}"


def _disk(spool: Spool, segment_size_bytes: int) -> str:
    free, least = spool.free_bytes(), _LEAST_FREE_SEGMENTS * segment_size_bytes
    shown = f"{free / 2**20:,.0f} MiB free"
    if free < least:
        raise SpoolError(
            f"{shown}, expected at least {least / 2**20:,.0f} MiB, which is {_LEAST_FREE_SEGMENTS} segments",
            hint="Make room: when the disk is full, PostgreSQL keeps its WAL in pg_wal until that is full too.",
        )
    return shown


def _waiting(spool: Spool, now: datetime) -> str:
    ready = spool.scan(now).ready
    if not ready:
        return "no file waits"
    oldest = min(ready, key=lambda file: file.spooled_at)
    waited_seconds = (now - oldest.spooled_at).total_seconds()
    shown = f"{len(ready)} files wait, the oldest '{oldest.name.name}' for {waited_seconds:.0f} s"
    if waited_seconds > _MAX_WAIT_SECONDS:
        raise SpoolError(
            shown, hint="See that Dagster's daemon runs and its spool sensor is on, or type 'wal-pipeline archive'."
        )
    return shown
