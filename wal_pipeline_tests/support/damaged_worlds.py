"""Generated archives of which one store is damaged: what retention sees of them, and what the truth is."""

from dataclasses import dataclass, replace
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter

from wal_pipeline.archive.records import BaseBackup
from wal_pipeline.archive.recovery.coverage import ArchiveContents, HeldBackup, chain_of
from wal_pipeline.archive.retention.proof import Listed
from wal_pipeline.archive.retention.remains import BrokenBackup, Remains
from wal_pipeline.wal.names import history_name, parse_file_name
from wal_pipeline_tests.support.archive_worlds import SIZE, SYSTEM, World, worlds


@dataclass(frozen=True, repr=False)
class DamagedWorld:
    """``truth`` is the archive as it was; ``seen`` is what retention knows of it after damage to ``store``."""

    truth: World
    store: str
    seen: ArchiveContents
    remains: Remains
    lost_names: frozenset[str]

    @property
    def sizes(self) -> dict[str, int]:
        """The files of which the store has something, whole or not."""
        return dict.fromkeys(self.truth.contents.copies[self.store], 1000)

    def listed(self) -> Listed:
        """Return what the store lists."""
        whole = {key: one.backup for key, one in self.seen.backups.items() if self.store in one.stores}
        return Listed(
            backup_ids=frozenset(whole) | {one.backup_id for one in self.remains.broken},
            whole=whole,
            chains=self.remains.chains,
            names=self.truth.contents.copies[self.store],
            files=self.seen.files,
            wal_segment_size=SIZE,
            segment_sizes=frozenset({SIZE}),
            histories=self.seen.histories,
        )

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:  # noqa: ARG002 - IPython's protocol
        printer.text(repr(self))

    def __repr__(self) -> str:
        """Return the truth, and what was done to it."""
        broken = [(one.backup_id, one.backup is not None, f"{one.ended_at:%m-%d}") for one in self.remains.broken]
        unread = sorted(self.remains.unread_histories)
        return f"{self.truth!r}\nbroken on {self.store}: {broken}\nlost: {sorted(self.lost_names)} unread: {unread}"


@st.composite
def damaged_worlds(draw: st.DrawFn, *, skew: bool = False) -> DamagedWorld:
    """Draw an archive, and damage base backups, WAL and history files of its store "a"."""
    world = draw(worlds(skew=skew))
    archive, store = world.contents, "a"
    mine = [key for key, one in archive.backups.items() if store in one.stores]
    broken_ids = draw(st.sets(st.sampled_from(mine), max_size=3)) if mine else set()
    unread = draw(st.sets(st.sampled_from(sorted(broken_ids)))) if broken_ids else set()
    segments = sorted(name for name in archive.copies[store] if not name.endswith(".history"))
    lost = draw(st.sets(st.sampled_from(segments), max_size=3)) if segments else set()
    timelines = sorted(archive.histories)
    unread_histories = draw(st.sets(st.sampled_from(timelines), max_size=1)) if timelines else set()
    known = {key: one for key, one in archive.backups.items() if key not in unread}
    healthy = [
        HeldBackup(one.backup, one.stores - {store} if key in broken_ids else one.stores) for key, one in known.items()
    ]
    seen = ArchiveContents.of(
        SYSTEM,
        files=archive.files.values(),
        copies={**archive.copies, store: archive.copies[store] - lost},
        backups=healthy,
        histories={key: one for key, one in archive.histories.items() if key not in unread_histories},
    )
    broken = [_broken(archive, key, is_known=key not in unread) for key in sorted(broken_ids)]
    chains = {key: _chain(archive, one.backup) for key, one in known.items()}
    named = {parse_file_name(name) for name in archive.files}
    there = {file.timeline for file in named if file is not None and file == history_name(file.timeline)}
    remains = Remains(tuple(broken), chains, unread_histories=frozenset(unread_histories & there))
    return DamagedWorld(world, store, seen, remains, frozenset(lost))


def _broken(archive: ArchiveContents, key: str, *, is_known: bool) -> BrokenBackup:
    backup = archive.backups[key].backup
    found = BrokenBackup(key, "a: damaged", backup.finished_at, 10**8)
    if is_known:
        return replace(found, backup=backup, chain=_chain(archive, backup))
    return replace(found, ended_at=found.started_at + timedelta(hours=1))


def _chain(archive: ArchiveContents, backup: BaseBackup) -> tuple[str, ...]:
    return tuple(one.backup_id for one in chain_of(archive, backup) or ())[:-1]
