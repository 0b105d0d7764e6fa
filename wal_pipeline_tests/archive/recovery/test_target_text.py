"""A recovery target is read from a person's words."""

import pytest

from wal_pipeline.archive.recovery.target import RecoveryTarget, TargetKind
from wal_pipeline.archive.recovery.target_text import TargetTextError, target_from_text
from wal_pipeline.errors import RecoveryTargetError


def test_no_words_are_the_end() -> None:
    """Nothing given is a choice, too."""
    assert target_from_text() == RecoveryTarget()
    assert target_from_text(to_xid=700, timeline="3") == RecoveryTarget(kind=TargetKind.XID, xid=700, timeline=3)


@pytest.mark.parametrize("option", ["time", "lsn", "name"])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_value_is_not_the_end(option: str, text: str) -> None:
    """An empty variable in a script must not restore everything."""
    with pytest.raises(TargetTextError) as caught:
        target_from_text(**{f"to_{option}": text})  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"--to-{option} is empty.\nHINT: Give it a value, or leave --to-{option} out to recover to the end."
    )


def test_an_empty_value_beside_another_is_a_second_target() -> None:
    """Which of the two was meant is not ours to guess."""
    with pytest.raises(TargetTextError, match=r"Give one recovery target: --to-time or --to-xid\."):
        target_from_text(to_time="", to_xid=0)


def test_transaction_0_is_refused_as_such() -> None:
    """PostgreSQL has no such transaction."""
    with pytest.raises(RecoveryTargetError) as caught:
        target_from_text(to_xid=0)
    assert caught.value.message == "transaction id 0 is outside 3 to 2**32 - 1"


@pytest.mark.parametrize("text", ["", "0", "²", "٣", "-1", "4294967296", "newest"])
def test_a_timeline_is_a_number_or_a_word(text: str) -> None:
    """Digits of other scripts are no numbers for PostgreSQL."""
    with pytest.raises(TargetTextError) as caught:
        target_from_text(timeline=text)
    assert caught.value.message == f"'{text}' is not a timeline, expected latest, current or a number."
