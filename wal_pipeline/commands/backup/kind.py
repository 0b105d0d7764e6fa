"""Decides whether a base backup is incremental, and on which it is built; else it is a full one, and says why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wal_pipeline.commands.backup.parent import ParentBackup, choose_parent, fetch_parent
from wal_pipeline.errors import BaseBackupError, WalPipelineError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.text import counted

# What the server says that no longer has the summaries since the parent, or has another timeline than the parent's
# (basebackup_incremental.c, walsummary.c).
_NOT_SINCE_PARENT: Final = ("WAL summar", "manifest requires WAL")
# What keeps pg_basebackup from the server though its role may replicate: pg_hba.conf, no connection that is free, and
# that there is no such program (binaries.py).
_NO_STREAM: Final = ("pg_hba.conf", "max_wal_senders", "no 'pg_basebackup'", "no program 'pg_basebackup'")


@dataclass(frozen=True, slots=True)
class ParentWish:
    """The parent that is asked for: ``parent_id``, by default the newest base backup.

    ``or_full``: where no incremental base backup can be had, a full one is taken. Of base backups that build on each
    other there are ``max_chain`` at most, the full one counted; a parent that is named is built on all the same.
    """

    parent_id: str | None = None
    or_full: bool = False
    max_chain: int = 7


@dataclass(frozen=True, slots=True)
class ChosenKind:
    """A base backup is incremental where there is a ``parent``; else ``why_full`` says why not, for a person."""

    parent: ParentBackup | None
    why_full: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The reason as a sentence; none where it is incremental."""
        return () if self.why_full is None else (f"a full base backup was taken: {self.why_full}",)


def choose_kind(
    places: Sequence[ClusterStore],
    wish: ParentWish,
    check: Callable[[ParentBackup], object],
    *,
    identities: Sequence[Any],
    folder: Path,
) -> ChosenKind:
    """Return the parent, with its file list in ``folder``; none where a full base backup is due.

    ``check`` raises where the server cannot build on the parent.

    Raises: BaseBackupError, ParentError where an incremental one cannot be had and was asked for alone.
    """
    try:
        chosen = choose_parent(places, wish.parent_id)
        parent = fetch_parent(places, chosen, identities=identities, folder=folder)
        check(parent)
    except BaseBackupError as error:
        if not wish.or_full:
            raise
        return ChosenKind(None, f"an incremental one cannot be had: {error.message}")
    built = len(parent.chain)
    if wish.parent_id is None and built >= wish.max_chain:
        return ChosenKind(
            None,
            f"'{parent.manifest.backup_id}' is the last of {counted(built, 'base backup')} that build on each other, "
            f"of at most {wish.max_chain}",
        )
    return ChosenKind(parent)


def why_not_since_parent(error: WalPipelineError) -> str | None:
    """Return the server's reason for having nothing to build an incremental base backup from; None for other errors."""
    if not any(words in error.message for words in _NOT_SINCE_PARENT):
        return None
    return f"an incremental one cannot be had: {error.message}"


def is_no_block(error: WalPipelineError) -> bool:
    """Say whether the server sent no changed blocks for a reason for which files can be compared all the same."""
    return any(words in error.message for words in (*_NOT_SINCE_PARENT, *_NO_STREAM))
