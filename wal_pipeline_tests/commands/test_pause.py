"""How long a pause lasts, whatever the clock does."""

from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.commands.pause import PauseWatch, current_pause, pause
from wal_pipeline.errors import CatalogError
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


def test_a_catalog_that_restarts_does_not_fail_a_run_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last answer holds until the catalog answers again; one that never answered is an error."""
    monkeypatch.setattr("wal_pipeline.commands.pause._ASK_SECONDS", 0.0)
    scene = HealthScene(tmp_path)
    catalog = scene.catalog

    def refuse(_key: str) -> None:
        raise CatalogError("catalog failed: the server is starting up")

    watch = PauseWatch(catalog, lambda: scene.now)
    assert not watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog.values, "get", refuse)
        assert not watch()
        with pytest.raises(CatalogError):
            PauseWatch(catalog, lambda: scene.now)()
    pause(catalog, scene.now, length=timedelta(hours=1), reason="", by="anna")
    assert watch()
