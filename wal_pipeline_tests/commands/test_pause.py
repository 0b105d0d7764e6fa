"""How long a pause lasts, whatever the clock does."""

from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.pause import current_pause, pause
from wal_pipeline_tests.support.health_scene import HealthScene


@pytest.mark.parametrize(
    ("minutes", "holds"),
    [(0, True), (119, True), (120, False), (-1, True), (-120, True), (-121, False), (-60 * 24, False)],
)
def test_pause_and_clock(tmp_path: Path, minutes: int, holds: bool) -> None:
    """It holds to its end; a clock that is set back a little does not end it, nor does one set back far prolong it."""
    scene = HealthScene(tmp_path)
    made = pause(scene.catalog, scene.now, length=timedelta(hours=2), reason="moving the bucket", by="me")
    assert current_pause(scene.catalog, scene.now + timedelta(minutes=minutes)) == (made if holds else None)
