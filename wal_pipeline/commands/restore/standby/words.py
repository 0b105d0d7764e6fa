"""Says in a person's words what becomes of a data directory, and what its server does there."""

from collections.abc import Iterator

from wal_pipeline.commands.restore.prepare import PreparedRestore

_FOLLOWS_ALONE = "the stores alone"
_FOLLOWS_AS_BEFORE = "the primary that its configuration names, and the stores"
_ASK = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), (SELECT status FROM pg_stat_wal_receiver)"


def target_words(prepared: PreparedRestore, *, exclusive: str) -> str:
    """Return where the recovery ends, and what the server does then. ``exclusive`` is added where it stops before."""
    asked, request = prepared.plan.asked, prepared.request
    if request.standby is None:
        return f"{asked}{'' if asked.inclusive else exclusive}, then {request.action.value}"
    return "none: it is a standby, and follows"


def standby_rows(prepared: PreparedRestore) -> list[tuple[str, str]]:
    """Return the rows of a plan that only a standby has."""
    standby = prepared.request.standby
    if standby is None:
        return []
    slot = f" by slot '{standby.slot}'" if standby.slot else ""
    alone = _FOLLOWS_AS_BEFORE if prepared.request.wal_only else _FOLLOWS_ALONE
    follows = f"{standby.primary}{slot}, and the stores" if standby.conninfo else alone
    return [("follows", follows)]


def standby_role(prepared: PreparedRestore) -> str | None:
    """Return what a standby archives; None for another server."""
    if prepared.request.standby is None:
        return None
    return "a standby: as its configuration says, once it is promoted"


def start_words(start_line: str) -> Iterator[str]:
    """Yield how a standby is started, and how a person sees what it follows."""
    yield "Nothing is recovered yet. Start the standby, with the stores' settings in its environment or settings file:"
    yield f"  {start_line}"
    yield "It takes read-only sessions once it is consistent. Look what it follows:"
    yield f"  {_ASK}"
