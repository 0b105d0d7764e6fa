"""Reads from a survey what a store has that retention cannot judge: all of it stays, and is named."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Final, TypeVar

from wal_pipeline.archive.format.base_backup.manifest import BaseBackupManifest, is_backup_id, is_backup_object
from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.retention.remains import BrokenBackup, Remains, Unjudged
from wal_pipeline.commands.inventory.listing import StoreListing
from wal_pipeline.commands.inventory.survey import ClusterSurvey
from wal_pipeline.commands.inventory.wholeness import BackupFaultKind
from wal_pipeline.text import coarse_size
from wal_pipeline.wal.names import FileKind, history_name, parse_file_name

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_Value = TypeVar("_Value")


def read_remains(survey: ClusterSurvey, store: str, begins_at: datetime) -> Remains:
    """Return what a store has below one system identifier that the survey's contents leave out, or cannot place.

    ``begins_at`` is when the window begins.
    """
    reader = _Reader(survey, store, begins_at)
    broken, others = reader.backups()
    chains = {key: one.chain for listing in survey.listings.values() for key, one in listing.manifests.items()}
    return Remains(
        broken=tuple(broken),
        chains=chains,
        files=dict(reader.files()),
        backups=others,
        unread_histories=_unread_histories(survey),
    )


def backup_ids(survey: ClusterSurvey, store: str, begins_at: datetime) -> list[str]:
    """Return the ids of all base backups of which a store has an object, hidden ones too, readable or not.

    Objects that are not ours count while they are of the window: a newer version may be taking that base backup. Older
    ones were left there by somebody, perhaps in a base backup that expired long ago.
    """
    listing, layout = survey.listings[store], survey.layout
    hidden = {layout.backup_id_of(key) for key in listing.hidden.size_bytes if is_backup_object(part_of(key))}
    shown = {
        backup_id
        for backup_id, objects in listing.base.items()
        if any(is_backup_object(name) or item.modified_at > begins_at for name, item in objects.items())
    }
    return sorted(shown | {one for one in hidden if one is not None and is_backup_id(one)})


def part_of(key: str) -> str:
    """Return the last part of a key: within a base backup the object's name."""
    return key.rsplit("/", 1)[-1]


def foreign_keys(survey: ClusterSurvey, store: str) -> list[str]:
    """Return the keys of all objects below the system identifier that we never make, within base backups too."""
    listing = survey.listings[store]
    inside = (
        item.key
        for backup_id, objects in listing.base.items()
        for name, item in objects.items()
        if not is_backup_object(name) and name not in _named(listing, backup_id)
    )
    return sorted(chain((item.key for item in listing.others), inside))


def _named(listing: StoreListing, backup_id: str) -> set[str]:
    manifest = listing.manifests.get(backup_id)
    return set() if manifest is None else {item.name for item in manifest.objects}


def hidden_files(survey: ClusterSurvey, store: str) -> set[str]:
    """Return the names of the files of which a store has hidden versions."""
    parsed = (survey.layout.parse_wal_key(key) for key in survey.listings[store].hidden.size_bytes)
    return {stored.file.name for stored in parsed if stored is not None}


def _unread_files(survey: ClusterSurvey, store: str) -> set[str]:
    return survey.listings[store].wal.keys() - survey.files.keys()


def segment_sizes(survey: ClusterSurvey) -> set[int]:
    """Return all segment sizes that files and base backups of this system identifier say that they have."""
    files = {file.wal_segment_size for file in survey.files.values() if file.wal_segment_size is not None}
    manifests = chain.from_iterable(one.manifests.values() for one in survey.listings.values())
    return files.union(
        (one.wal_segment_size for one in manifests),
        (one.wal_segment_size for one in survey.records.base_backups.values()),
    )


class _Reader:
    """Reads one store of a survey."""

    def __init__(self, survey: ClusterSurvey, store: str, begins_at: datetime) -> None:
        self._survey = survey
        self._store = store
        self._begins_at = begins_at
        self._listing = survey.listings[store]
        self._size = survey.contents.wal_segment_size
        root = survey.layout.base_root
        self._hidden_keys = [key for key in self._listing.hidden.size_bytes if key.startswith(root)]

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the files whose names say no position, or whose records nobody can read, with the reason."""
        files = self._survey.files
        for name in _unread_files(self._survey, self._store):
            yield name, "it is not recorded, and what its object says of itself cannot be read"
        if segment_sizes(self._survey) <= {self._size}:
            return
        recorded = self._survey.records.copies.get(self._store, {}).keys()
        for name in recorded | hidden_files(self._survey, self._store) | (self._listing.wal.keys() & files.keys()):
            reason = self._other_size(name)
            if reason is not None:
                yield name, reason

    def _other_size(self, name: str) -> str | None:
        file = self._survey.files.get(name)
        if file is not None and file.kind is FileKind.HISTORY:
            return None
        size = file.wal_segment_size if file is not None else None
        if size is None:
            return "this archive has segments of several sizes, and nobody can say to which of them it belongs"
        return None if size == self._size else self._of_other_size(size)

    def _of_other_size(self, size: int) -> str:
        return f"of segment size {coarse_size(size)}, and cannot be compared with that of {coarse_size(self._size)}"

    def backups(self) -> tuple[list[BrokenBackup], dict[str, Unjudged]]:
        """Return the base backups that are here and not whole, and those of another segment size."""
        broken: list[BrokenBackup] = []
        others: dict[str, Unjudged] = {}
        for backup_id in backup_ids(self._survey, self._store, self._begins_at):
            held = self._survey.contents.backups.get(backup_id)
            if held is not None and self._store in held.stores:
                continue
            known = self._known(backup_id)
            if known is not None and known[0].wal_segment_size != self._size:
                reason = f"its WAL is {self._of_other_size(known[0].wal_segment_size)}"
                others[backup_id] = Unjudged(self._stored_bytes(backup_id), reason)
            else:
                broken.append(self._broken(backup_id, known))
        return broken, others

    def _broken(self, backup_id: str, known: tuple[BaseBackup, tuple[str, ...]] | None) -> BrokenBackup:
        fault = self._listing.faults.get(backup_id)
        backup, links = known or (None, None)
        was_whole = self._survey.layout.manifest_key(backup_id) in self._listing.hidden.size_bytes
        has_manifest = fault is not None and fault.kind is not BackupFaultKind.UNFINISHED
        return BrokenBackup(
            backup_id,
            self._reason(backup_id),
            backup.finished_at if backup is not None else self._newest_at(backup_id),
            self._stored_bytes(backup_id),
            backup,
            links,
            is_unfinished=backup is None and not was_whole and not has_manifest,
            is_understood=self._is_understood(backup_id),
        )

    def _is_understood(self, backup_id: str) -> bool:
        """Say whether what is here was written by this version, for this cluster."""
        fault, manifest = self._listing.faults.get(backup_id), self._listing.manifests.get(backup_id)
        is_ours = manifest is None or manifest.system_identifier == self._survey.layout.system_identifier
        return is_ours and (fault is None or not fault.is_later)

    def _reason(self, backup_id: str) -> str:
        fault = self._listing.faults.get(backup_id)
        if fault is not None:
            return fault.reason
        if backup_id not in self._listing.base:
            return f"base backup '{backup_id}' has only hidden versions of objects"
        recorded = self._survey.records.backups.get((self._store, backup_id))
        if recorded is not None and recorded.last_error is not None:
            return recorded.last_error
        return f"base backup '{backup_id}' is recorded as damaged, or is of another cluster"

    def _known(self, backup_id: str) -> tuple[BaseBackup, tuple[str, ...]] | None:
        """Return what a manifest on any store, or else the catalog, says of a base backup, and its chain."""
        mine = self._listing.manifests.get(backup_id)
        found = (one.manifests.get(backup_id) for one in self._survey.listings.values())
        manifest = mine or next((one for one in found if one is not None), None)
        if manifest is not None:
            return self._from_manifest(manifest)
        recorded = self._survey.records.base_backups
        backup = recorded.get(backup_id)
        if backup is None:
            return None
        links: list[str] = []
        parent_id = backup.parent_id
        while parent_id is not None and parent_id not in links:
            links.insert(0, parent_id)
            parent_id = recorded[parent_id].parent_id if parent_id in recorded else None
        return backup, tuple(links)

    def _from_manifest(self, manifest: BaseBackupManifest) -> tuple[BaseBackup, tuple[str, ...]] | None:
        if manifest.system_identifier != self._survey.layout.system_identifier:
            return None  # it lies in another cluster's place: its id alone counts
        return manifest.record(), manifest.chain

    def _stored_bytes(self, backup_id: str) -> int:
        objects = self._listing.base.get(backup_id, {}).values()
        return sum(item.size_bytes for item in objects) + sum(self._hidden(self._listing.hidden.size_bytes, backup_id))

    def _newest_at(self, backup_id: str) -> datetime:
        """Return when something last came to a base backup."""
        shown = (item.modified_at for item in self._listing.base.get(backup_id, {}).values())
        return max(chain(shown, self._hidden(self._listing.hidden.newest_at, backup_id)), default=_EARLIEST)

    def _hidden(self, values: Mapping[str, _Value], backup_id: str) -> Iterator[_Value]:
        layout = self._survey.layout
        return (values[key] for key in self._hidden_keys if layout.backup_id_of(key) == backup_id and key in values)


def _unread_histories(survey: ClusterSurvey) -> frozenset[int]:
    """Return the timelines whose history file is on a store, or was, and could not be read. Timeline 1 has none."""
    names = set(survey.records.files).union(*(one.wal for one in survey.listings.values()))
    histories = (parse_file_name(name) for name in names if name.endswith(".history"))
    there = {file.timeline for file in histories if file is not None and file == history_name(file.timeline)}
    return frozenset(there - survey.contents.histories.keys() - {1})


def told_remains(survey: ClusterSurvey, store: str, remains: Remains, going: Collection[str]) -> tuple[str, ...]:
    """Say what stays because nobody can judge it, each kind with the way out; what is ``going`` does not stay."""
    told = (
        _told_backups(store, [one for one in remains.broken if one.backup_id not in going]),
        _told_sizes(survey, store, remains),
        _told_files(survey, store, remains),
        _told_others(survey, store),
    )
    return tuple(chain(*told))


def _told_backups(store: str, broken: Iterable[BrokenBackup]) -> Iterator[str]:
    for one in broken:
        if not one.is_understood:
            yield (
                f"{store}: base backup '{one.backup_id}' and all that it could need stay, because {one.fault}. "
                "If a newer version of wal-pipeline wrote it, update this one"
            )
        elif one.is_unfinished:
            yield (
                f"{store}: base backup '{one.backup_id}' has no manifest and is known to nobody: it may be in the "
                "making, and all that it could need stays. If it is not, remove its objects"
            )


def _told_sizes(survey: ClusterSurvey, store: str, remains: Remains) -> Iterator[str]:
    sizes = sorted(segment_sizes(survey))
    if len(sizes) > 1:
        files = len(remains.files.keys() - _unread_files(survey, store))
        yield (
            f"{store}: {files} files and {len(remains.backups)} base backups stay, because this archive has segments "
            f"of {', '.join(coarse_size(size) for size in sizes)}: their names are positions that cannot be compared. "
            "Archive the cluster under a new name (WAL_PIPELINE_CLUSTER) since its segment size changed; when no "
            "moment before that is wanted any more, remove by hand what 'expire --json' names"
        )


def _told_files(survey: ClusterSurvey, store: str, remains: Remains) -> Iterator[str]:
    unread = sorted(_unread_files(survey, store))
    if unread:
        yield (
            f"{store}: {len(unread)} files stay, because they are not recorded and their metadata cannot be read, "
            f"first '{unread[0]}'. A newer version of wal-pipeline may have written them: update this one"
        )
    for timeline in sorted(remains.unread_histories):
        yield (
            f"{store}: all WAL of timeline {timeline} stays, because its history file cannot be read. "
            "'wal-pipeline verify --repair' heals it from a good copy"
        )


def _told_others(survey: ClusterSurvey, store: str) -> Iterator[str]:
    others = foreign_keys(survey, store)
    if others:
        yield f"{store}: {len(others)} objects below '{survey.layout.root}' are not ours and stay, first '{others[0]}'"
