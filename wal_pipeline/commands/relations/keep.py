"""Asks the server for its relations and puts the list on every store."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wal_pipeline.archive.format.keys import Layout, moment_name
from wal_pipeline.archive.format.relations import RelationList
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.relations.stored_list import describe_list, put_list
from wal_pipeline.errors import RelationListError, StoreError, WalPipelineError
from wal_pipeline.host.gc_pause import many_objects
from wal_pipeline.postgres.relation_query import RelationServer
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.text import counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptList:
    """A list that at least one store has. ``failures``: why the others lack it. Sizes are in bytes."""

    moment: str
    databases: int
    relations: int
    size_bytes: int
    stored_size_bytes: int
    stored_on: tuple[str, ...]
    failures: Mapping[str, str]
    unread: Mapping[str, str]
    seconds: float

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each store that lacks the list, and for each database that the list lacks."""
        return (
            *(f"{store}: the list of relations is not kept: {reason}" for store, reason in self.failures.items()),
            *(f"database '{name}' is not in the list of relations: {why}" for name, why in self.unread.items()),
        )

    def describe(self) -> str:
        """Say what was kept, in one line."""
        where = ", ".join(self.stored_on)
        return f"{counted(self.relations, 'relation')} of {counted(self.databases, 'database')} kept on {where}"


@dataclass(frozen=True, slots=True)
class KeepAttempt:
    """Whether a list was kept with a base backup, and what it lacks, or why there is none."""

    is_kept: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def failed(cls, reason: str) -> "KeepAttempt":
        """Return the attempt that made no list."""
        return cls(is_kept=False, notes=(f"no list of relations is kept with this base backup: {reason}",))


@dataclass(frozen=True, slots=True)
class RelationKeeper:
    """Keeps lists of one server's relations. ``system_identifier`` is the cluster's where the settings name it."""

    server: RelationServer
    stores: Mapping[str, Store]
    layout: Callable[[int], Layout]
    encoder: Encoder
    read_back: bool = True
    system_identifier: int | None = None

    def keep(self) -> KeptList:
        """Make a list now and put it on every store. A database that cannot be read is named in it.

        A list alone must not make a store know a cluster: a restore would have to be told which of two is meant. So
        none is kept before WAL or a base backup is there.

        Raises: PostgresError where the server does not answer; RelationListError where it is another cluster's, or no
        store took the list.
        """
        begun = time.monotonic()
        with many_objects():
            listed = self.server.relation_list()
            self._require_cluster(listed)
            content = listed.to_json()
        described, encoded = describe_list(listed, content), self.encoder.encode(content)
        layout = self.layout(listed.system_identifier)
        self._require_archive(layout)
        failures: dict[str, str] = {}
        for name, store in self.stores.items():
            try:
                put_list(ClusterStore(store, layout), described, encoded, read_back=self.read_back)
            except WalPipelineError as error:
                failures[name] = error.message
        kept = KeptList(
            moment=moment_name(listed.taken_at),
            databases=len(listed.databases),
            relations=len(listed.relations),
            size_bytes=len(content),
            stored_size_bytes=encoded.encoding.size_bytes,
            stored_on=tuple(name for name in self.stores if name not in failures),
            failures=failures,
            unread={one.name: one.unread for one in listed.databases if one.unread and not _is_closed(one.name)},
            seconds=time.monotonic() - begun,
        )
        if not kept.stored_on:
            raise RelationListError(f"no store took the list of relations: {'; '.join(failures.values())}")
        return kept

    def try_keep(self) -> KeepAttempt:
        """Keep a list; whatever goes wrong is a note: a base backup goes on without a list."""
        try:
            kept = self.keep()
        except WalPipelineError as error:
            return KeepAttempt.failed(error.message)
        except Exception as error:  # noqa: BLE001 - a base backup is worth more than the names in it
            _log.debug("unexpected exception while a list of relations was made", exc_info=error)
            return KeepAttempt.failed(f"{type(error).__name__}: {error}")
        _log.info("%s, %.1f s", kept.describe(), kept.seconds)
        return KeepAttempt(is_kept=True, notes=kept.notes)

    def _require_archive(self, layout: Layout) -> None:
        silent = []
        for store in self.stores.values():
            try:
                for prefix in (layout.wal_root, layout.base_root, layout.tail_root):
                    if next(iter(store.list(prefix)), None) is not None:
                        return
            except StoreError as error:
                silent.append(error.message)
        found = f"no store that answered has anything below '{layout.root}' yet"
        raise RelationListError(
            "; ".join([*silent, found]),
            hint="The server of the settings is another cluster's, or nothing of it is archived: 'wal-pipeline status' "
            "shows which. A list is kept once WAL or a base backup is there.",
        )

    def _require_cluster(self, listed: RelationList) -> None:
        expected = self.system_identifier
        if expected is not None and listed.system_identifier != expected:
            raise RelationListError(
                f"the server has system identifier {listed.system_identifier}, expected {expected}",
                hint="WAL_PIPELINE_CONNINFO or PGHOST and PGPORT name another cluster's server.",
            )


def _is_closed(name: str) -> bool:
    """Say whether a database is closed on every cluster: nobody changes ``template0``."""
    return name == "template0"
