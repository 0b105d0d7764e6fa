"""Tests that a measured restore is kept as values and read back."""

import json
from datetime import UTC, datetime

import pytest

from wal_pipeline.archive.restore_time.measure import (
    MeasuredBy,
    MeasuredRestore,
    RestorePhase,
    RestoreWork,
    measure_from_values,
    measure_values,
)

MEASURED = MeasuredRestore(
    "db1",
    MeasuredBy.RESTORE,
    datetime(2026, 11, 29, 12, 30, 1, 5, tzinfo=UTC),
    RestoreWork(("r2", "b2"), 10, 40, 20, 50, verifies=False),
    {RestorePhase.DOWNLOAD: 1.25, RestorePhase.REPLAY: 0.5},
    predicted_seconds=2.0,
)


def test_it_is_read_back_whole() -> None:
    """Through JSON, as the catalog keeps it."""
    assert measure_from_values(json.loads(json.dumps(measure_values(MEASURED)))) == MEASURED


def test_a_phase_of_a_later_version_is_left_out() -> None:
    """The others still say how long they took."""
    values = measure_values(MEASURED)
    values["seconds"]["teleport"] = 0.1
    assert measure_from_values(values) == MEASURED


@pytest.mark.parametrize("spoil", [{"by": "guess"}, {"finished_at": "yesterday"}, {"stores": None}])
def test_what_is_no_measure_is_refused(spoil: dict[str, object]) -> None:
    """Whoever reads the records passes it over."""
    with pytest.raises((ValueError, TypeError)):
        measure_from_values({**measure_values(MEASURED), **spoil})


def test_each_phase_knows_its_bytes() -> None:
    """Verification has none where nothing is verified."""
    assert {phase.value: MEASURED.work.amount(phase) for phase in RestorePhase} == {
        "plan": None, "download": 10, "combine": 50, "verify": 0, "finish": 40, "start": None, "replay": 20,
        "open": None,
    }  # fmt: skip
