"""Chooses the databases that a restore brings back by their names, and the volumes that it need not fetch for that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final, Protocol

from wal_pipeline.archive.format.base_backup.file_index import FileIndex
from wal_pipeline.archive.format.base_backup.manifest import FILES, BaseBackupManifest
from wal_pipeline.archive.format.base_backup.tar_cuts import parse_cuts, parse_volume_databases
from wal_pipeline.archive.records import BackupMethod
from wal_pipeline.commands.restore.chosen.left_out import LeftOutDatabases
from wal_pipeline.commands.restore.chosen.volumes import fetched_bytes, volumes_left_out, volumes_of_databases
from wal_pipeline.commands.restore.download import cuts_limit
from wal_pipeline.commands.restore.files.small_objects import read_file_index, read_small_object
from wal_pipeline.errors import RestoreError, WalPipelineError
from wal_pipeline.stores.cluster_store import ClusterStore

ALWAYS_THERE: Final = frozenset({"template0", "template1", "postgres"})
FIRST_NORMAL_OID: Final = 16384  # access/transam.h: initdb's own databases have lower ones
_SHOWN_NAMES: Final = 20


class NamedDatabase(Protocol):
    """A database in a list of those that a cluster had."""

    @property
    def oid(self) -> int:
        """Its oid, which it keeps when it is renamed."""

    @property
    def name(self) -> str:
        """Its name when the list was taken."""


class DatabaseList(Protocol):
    """A list of the databases that a cluster had at a moment."""

    @property
    def taken_at(self) -> datetime:
        """The moment."""

    @property
    def databases(self) -> Sequence[NamedDatabase]:
        """All databases of the cluster at the moment."""


ReadLists = Callable[[Sequence[ClusterStore], Sequence[Any], datetime], tuple[Sequence[DatabaseList], Sequence[str]]]


@dataclass(frozen=True, slots=True)
class ChosenDatabases:
    """The databases that a restore brings back, beside those that every cluster has.

    ``names`` are those that were asked for, ``oids`` all that had one of these names since the base backup.
    ``left_out`` is empty where nothing tells which files are whose: then all files come, and the other databases are
    only dropped. ``saved_bytes`` are those of the stores' objects that are not fetched.
    """

    names: tuple[str, ...]
    oids: frozenset[int]
    left_out: LeftOutDatabases
    saved_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def left_out_names(self) -> tuple[str, ...]:
        """The names of the databases whose files do not come, in order."""
        return tuple(sorted(self.left_out.names.values()))

    def needed(self, manifest: BaseBackupManifest) -> BaseBackupManifest:
        """Return what is fetched of a base backup: its tars with the volumes that are needed, and their sizes."""
        if manifest.method is BackupMethod.LOCAL:
            return self._needed_volumes(manifest)
        tars = []
        for tar in manifest.tars:
            unneeded = self.left_out.unneeded(manifest.backup_id, tar.name)
            size = sum(tar.objects[number].content_size_bytes for number in unneeded)
            kept = tuple(item for number, item in enumerate(tar.objects) if number not in unneeded)
            tars.append(replace(tar, objects=kept, size_bytes=tar.size_bytes - size))
        return replace(manifest, tars=tuple(tars))

    def _needed_volumes(self, manifest: BaseBackupManifest) -> BaseBackupManifest:
        unneeded = self.left_out.unneeded(manifest.backup_id, FILES)
        volumes = manifest.volumes
        kept = tuple(volume for number, volume in enumerate(volumes) if number not in unneeded)
        saved = sum(volumes[number].item.content_size_bytes for number in unneeded)
        return replace(manifest, volumes=kept, files_size_bytes=max(manifest.files_size_bytes - saved, 0))


def require_copy(names: Sequence[str], *, is_copy: bool) -> None:
    """Refuse a server with only some databases in its original's place.

    It would archive, and retention would in time remove the last base backups that have the other databases.

    Raises: RestoreError.
    """
    if names and not is_copy:
        raise RestoreError(
            "a server with only some of the databases cannot take its original's place: what it archives would in time "
            "push out the last base backups that have the others",
            hint="Make a copy, with --no-archiving, and load what you need from it with pg_dump; or restore all "
            "databases, without --only-database.",
        )


def needed_of(chosen: ChosenDatabases | None, chain: Sequence[BaseBackupManifest]) -> tuple[BaseBackupManifest, ...]:
    """Return what is fetched of the base backups of a chain: all of it where no databases were chosen."""
    return tuple(one if chosen is None else chosen.needed(one) for one in chain)


def choose_databases(
    names: Sequence[str],
    chain: Sequence[BaseBackupManifest],
    places: Sequence[ClusterStore],
    identities: Sequence[Any],
    read_lists: ReadLists,
    *,
    index: FileIndex | None = None,
) -> ChosenDatabases | None:
    """Return the databases that are wanted, and which volumes of the chain hold nothing of them; None without names.

    Where no store has a list of the databases, or none can be read, nothing is left out. ``index``: the file index of
    the one base backup in the chain, where it was read before.

    Raises: RestoreError for a name that no database had.
    """
    if not names:
        return None
    wanted = tuple(dict.fromkeys(names))
    lists, notes = read_lists(places, identities, chain[0].started_at)
    if not lists:
        said = "no list of the cluster's databases is at hand, so that all files are restored: nothing is saved"
        return ChosenDatabases(wanted, frozenset(), LeftOutDatabases(), 0, (*notes, said))
    oids, others = sort_databases(wanted, lists, chain[0].finished_at)
    volumes: dict[tuple[str, str], frozenset[int]] = {}
    said_of: list[str] = [*notes]
    for manifest in chain:
        try:
            volumes |= _unneeded_volumes(manifest, others, places, identities, index)
        except WalPipelineError as error:
            said_of.append(f"all volumes of base backup '{manifest.backup_id}' are fetched: {error.message}")
    chosen = ChosenDatabases(wanted, oids, LeftOutDatabases(others, volumes), 0, tuple(said_of))
    whole = sum(map(fetched_bytes, chain))
    return replace(chosen, saved_bytes=whole - sum(map(fetched_bytes, needed_of(chosen, chain))))


def sort_databases(
    wanted: Sequence[str], lists: Iterable[DatabaseList], finished_at: datetime
) -> tuple[frozenset[int], dict[int, str]]:
    """Return the oids of the wanted databases, and the others' names by their oids.

    ``lists`` say what each database was called: the last one before the end of the base backup and all later ones
    count. A database that had a wanted name in any of them is wanted. One that no list knows is in neither result, so
    that its files are brought back.

    Raises: RestoreError for a name that no list knows.
    """
    ordered = sorted(lists, key=lambda one: one.taken_at)
    before = [one for one in ordered if one.taken_at <= finished_at]
    counted = [*before[-1:], *ordered[len(before) :]]
    names: dict[int, dict[str, None]] = {}
    for one in counted:
        for database in one.databases:
            names.setdefault(database.oid, {})[database.name] = None
    known = {name for some in names.values() for name in some} | ALWAYS_THERE
    for name in wanted:
        if name not in known:
            raise _unknown(name, known, counted[-1].taken_at)
    oids = frozenset(oid for oid, some in names.items() if not set(wanted).isdisjoint(some))
    others = {
        oid: tuple(some)[-1]
        for oid, some in names.items()
        if oid not in oids and oid >= FIRST_NORMAL_OID and ALWAYS_THERE.isdisjoint(some)
    }
    return oids, others


def _unknown(name: str, known: AbstractSet[str], taken_at: datetime) -> RestoreError:
    near = " or ".join(f"'{one}'" for one in get_close_matches(name, sorted(known), n=3))
    more = len(known) - _SHOWN_NAMES
    there = ", ".join(sorted(known)[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
    return RestoreError(
        f"no database is called '{name}'{f' (did you mean {near}?)' if near else ''}, expected one of: {there}",
        hint="Upper and lower case count. The newest list of the databases is of "
        f"{taken_at.isoformat(' ')}: for one that was created later, restore without --only-database.",
    )


def _unneeded_volumes(
    manifest: BaseBackupManifest,
    others: Mapping[int, str],
    places: Sequence[ClusterStore],
    identities: Sequence[Any],
    index: FileIndex | None,
) -> dict[tuple[str, str], frozenset[int]]:
    """Return the volumes that hold only files of other databases, by base backup and tar.

    Raises: RestoreError, BaseBackupError where nobody can tell.
    """
    if manifest.method is BackupMethod.LOCAL:
        found = index or read_file_index(manifest, places, identities)
        return {(manifest.backup_id, FILES): volumes_of_databases(found, others.keys())}
    item = manifest.tar_cuts
    if item is None:
        return {}
    if item.content_size_bytes > cuts_limit(manifest):
        raise RestoreError(f"'{item.name}' is larger than {cuts_limit(manifest)} bytes")
    data = read_small_object(manifest, item, places, identities, "which files its volumes hold")
    cuts, databases = parse_cuts(data, manifest), parse_volume_databases(data, manifest)
    return {
        (manifest.backup_id, tar.name): volumes_left_out(
            tar, cuts[tar.name], None if databases is None else databases[tar.name], others.keys()
        )
        for tar in manifest.tars
    }


def replay_settings(chosen: ChosenDatabases | None) -> dict[str, str]:
    """Return the settings with which a server replays WAL onto files without content.

    Most first changes of a page bring the whole page. Some do not: a page that VACUUM only marks as all visible, where
    neither checksums nor wal_log_hints are on (heapam.c: REGBUF_NO_IMAGE), a hash index's bucket, and any page where
    full_page_writes was off. PostgreSQL stops at such a page that is all zeros (xlogutils.c: log_invalid_page), unless
    it may ignore it; then it warns, and whoever watches the recovery looks whose page it was.
    """
    return {"ignore_invalid_pages": "on"} if chosen is not None and chosen.left_out.names else {}
