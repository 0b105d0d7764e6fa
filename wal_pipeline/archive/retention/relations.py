"""Decides which lists of relations one store keeps: those of the window, and the newest one from before it.

A list says what the relations were called from its moment on until the next one. Older WAL than the oldest base backup
that stays is read by nobody, and neither are the lists before the one that was in force when that base backup began.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wal_pipeline.archive.format.keys import moment_name, read_moment_name
from wal_pipeline.archive.retention.wal import Keep

_PREFIX: Final = "relations/"
_MOMENT_LENGTH: Final = len("20261122T174500Z")


@dataclass(frozen=True, slots=True)
class HeldList:
    """A list that one store has: how many objects, and their bytes with those of hidden versions."""

    objects: int
    stored_bytes: int


def list_name(moment: str) -> str:
    """Return the name under which a plan has the list of relations of a moment."""
    return f"{_PREFIX}{moment}"


def moment_of(name: str) -> str:
    """Return the moment of a name that ``list_name`` made."""
    return name.removeprefix(_PREFIX)


def judge_lists(
    lists: Mapping[str, HeldList], backup_ids: Collection[str], begins_at: datetime, now: datetime
) -> dict[str, Keep]:
    """Decide about each list of a store, by its moment.

    ``backup_ids`` are the base backups that stay there, readable or not: an id begins with the moment of its start.
    Without any, the window's begin counts. Where an id says no moment, all lists stay.
    """
    starts = {key: key[:_MOMENT_LENGTH] for key in backup_ids}
    unread = sorted(key for key, start in starts.items() if read_moment_name(start) is None)
    if unread:
        return dict.fromkeys(lists, Keep(kept=True, reason=f"base backup '{unread[0]}' does not say when it began"))
    oldest = min(starts, default=None)
    since = moment_name(begins_at) if oldest is None else starts[oldest]
    what = "the window began" if oldest is None else f"base backup {oldest}, the oldest that stays, began"
    newest_before = max((moment for moment in lists if moment <= since and moment <= moment_name(now)), default="")
    return {moment: _judge(moment, since, newest_before, what) for moment in lists}


def _judge(moment: str, since: str, newest_before: str, what: str) -> Keep:
    if moment > since:
        return Keep(kept=True, reason=f"taken after {what}")
    if moment >= newest_before:
        return Keep(kept=True, reason=f"the newest list from before {what}")
    return Keep(kept=False, reason=f"a newer list is from before {what}")
