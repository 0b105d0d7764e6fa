"""Makes, checks and drops the replication slot of the settings, and remembers which one is ours."""

from pathlib import Path

from wal_pipeline.errors import PostgresError, cause_hint
from wal_pipeline.host.durable_file import write_whole
from wal_pipeline.postgres.slots import Slots, SlotState
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.ship_source import received_folder

_MARK = ".slot"


def make_slot(pipeline: Pipeline) -> SlotState:
    """Make the slot, and note that it is ours. Raises: SlotError, PostgresError."""
    name = pipeline.settings.ship_slot
    made = Slots(pipeline.server).make(name)
    mark = _mark(pipeline)
    try:
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(_note(pipeline).encode(), mark)
    except OSError as error:
        raise PostgresError(
            f"slot '{name}' is made, but '{mark}' cannot be written: {error.strerror}",
            hint=cause_hint(error) or "The slot works; 'wal-pipeline slot drop' will not know that it is ours.",
        ) from error
    pipeline.audit.write("slot make", name, "made", restart_lsn=str(made.restart_lsn))
    return made


def check_slot(pipeline: Pipeline) -> SlotState:
    """Return the slot's state. Raises: SlotError with the way out, PostgresError."""
    return Slots(pipeline.server).check(pipeline.settings.ship_slot)


def slot_state(pipeline: Pipeline) -> SlotState | None:
    """Return the slot's state, usable or not; None where there is none, for alerts. Raises: PostgresError."""
    return Slots(pipeline.server).state(pipeline.settings.ship_slot)


def slot_was_made(pipeline: Pipeline) -> bool:
    """Whether a slot was made here and not dropped since, also where nothing receives from it any more.

    True where that cannot be seen: the server is then asked.
    """
    try:
        return _mark(pipeline).exists()
    except OSError:
        return True


def drop_slot(pipeline: Pipeline) -> None:
    """Drop the slot, where it is ours and nobody uses it. Raises: SlotError, PostgresError."""
    name, mark = pipeline.settings.ship_slot, _mark(pipeline)
    try:
        is_ours = mark.read_text(encoding="utf-8", errors="replace") == _note(pipeline)
    except FileNotFoundError:
        is_ours = False
    except OSError as error:
        raise PostgresError(f"'{mark}' cannot be read: {error.strerror}", hint=cause_hint(error)) from error
    Slots(pipeline.server).drop(name, is_ours=is_ours)
    mark.unlink(missing_ok=True)
    pipeline.audit.write("slot drop", name, "dropped")


def _note(pipeline: Pipeline) -> str:
    return f"{pipeline.server.system_identifier()} {pipeline.settings.ship_slot}"


def _mark(pipeline: Pipeline) -> Path:
    return received_folder(pipeline) / _MARK
