"""Defines the asset of the clones: the last one that was asked for, and all that stand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg

from wal_pipeline.orchestration.keys import AssetGroup, Keys
from wal_pipeline.orchestration.text_table import text_table
from wal_pipeline.text import counted, length, moment_utc, shown_name

if TYPE_CHECKING:
    from wal_pipeline.commands.clone.record import CloneState

_COLUMNS: Final = ("name", "state", "as of", "ends", "connect with")


def build_clones_asset(keys: Keys, stores: Sequence[str]) -> dg.AssetSpec:
    """Return the asset, which only its job fills."""
    return dg.AssetSpec(
        keys.clones,
        deps=[key for store in stores for key in (keys.base_backup(store), keys.wal_segment(store))],
        group_name=keys.group(AssetGroup.RECOVERY),
        kinds={"postgres"},
        description=f"{keys.title('clones')}. Running copies of the cluster as of a moment, beside the original, each "
        "for a while. The job `clone_cluster` makes, moves, lists and ends them: Jobs, clone_cluster, Launchpad. The "
        "list is that of its last run; `wal-pipeline clone list` says in a terminal what stands now.",
    )


def clones_metadata(
    answer: str,
    standing: "Sequence[CloneState]",
    *,
    state: "CloneState | None" = None,
    seconds: float | None = None,
    removed: Sequence[str] = (),
) -> dict[str, dg.MetadataValue]:
    """Return the answer, how to connect to the clone that was asked for, and all clones.

    ``state`` is the clone that was made or moved, ``removed`` says what was over or left by a restart.
    """
    found: dict[str, dg.MetadataValue] = {"answer": dg.MetadataValue.text(answer)}
    if state is not None:
        found |= _of_one(state)
    if seconds is not None:
        found["took"] = dg.MetadataValue.text(length(seconds))
    if standing:
        found["clones"] = text_table(_COLUMNS, map(_row, standing))
    if removed:
        found["removed"] = dg.MetadataValue.text("\n".join(map(shown_name, removed)))
    return found | {"clones that stand": dg.MetadataValue.int(len(standing))}


def clone_sentence(state: "CloneState", verb: str) -> str:
    """Say that a clone stands, as of when, and until when. ``verb``: made or moved."""
    ends = "" if state.ends_at is None else f"; it ends and is removed at {moment_utc(state.ends_at)}"
    return f"clone '{state.name}' is {verb} and {state.state.value}, as of {shown_name(state.target or '-')}{ends}"


def list_sentence(standing: "Sequence[CloneState]") -> str:
    """Say how many clones stand."""
    return f"{counted(len(standing), 'clone')} beside the cluster" if standing else "no clone stands"


def _of_one(state: "CloneState") -> dict[str, dg.MetadataValue]:
    texts = {
        "connect": state.connect,
        "port": f"127.0.0.1, port {state.port}; a role gets in with its password" if state.listens else None,
        "folder": str(state.folder),
        "reached LSN": state.reached_lsn,
        "notes": "\n".join(map(shown_name, state.notes)),
    }
    found: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.text(text) for name, text in texts.items() if text}
    moments = {"last commit": state.reached_commit_at, "ends at": state.ends_at}
    return found | {name: dg.MetadataValue.text(moment_utc(at)) for name, at in moments.items() if at is not None}


def _row(one: "CloneState") -> tuple[str, ...]:
    ends = "-" if one.ends_at is None else moment_utc(one.ends_at)
    connect = one.connect or "; ".join(map(shown_name, one.notes)) or "-"
    return one.name, one.state.value, shown_name(one.target or "-"), ends, connect
