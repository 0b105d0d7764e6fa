"""The ledger of gaps as it is typed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.cli.group import run
from wal_pipeline.commands.pause import current_pause
from wal_pipeline.wiring.pipeline import utc_now
from wal_pipeline_tests.support.health_scene import HealthScene, name


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthScene]:
    """An archive whose segments 5 and 6 are nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/catalog.sqlite")
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(tmp_path / "state"))
    made = HealthScene(tmp_path, now=utc_now())
    made.archive(1, 2, 3, 4, 7, 8, 9)
    made.back_up(2)
    yield made
    made.catalog.close()


def listed(capsys: pytest.CaptureFixture[str], code: int) -> list[dict[str, object]]:
    """What ``gaps list --json`` prints, ending with this code."""
    assert run(["gaps", "list", "--json"]) == code
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_an_open_gap_is_listed_for_each_store_and_all(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 1, and the segments by name."""
    found = listed(capsys, 1)
    assert sorted(str(gap["store"]) for gap in found) == ["all", "b2", "r2"]
    assert {gap["state"] for gap in found} == {"open"}
    assert {(gap["first_missing"], gap["last_missing"], gap["segments"]) for gap in found} == {(name(5), name(6), 2)}


def test_an_accepted_gap_is_open_no_more(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """A person gives a reason, and the ledger keeps it on every store."""
    assert run(["gaps", "ack", name(5), "--reason", "a disk was lost", "--by", "ada"]) == 0
    assert capsys.readouterr().out == f"the gap from {name(5)} on is accepted by ada\n"
    assert {gap["state"] for gap in listed(capsys, 0)} == {"acknowledged"}
    [kept] = scene.catalog.gaps.acknowledged()
    assert (kept.acknowledged_by, kept.reason) == ("ada", "a disk was lost")


def test_a_user_without_a_name(
    scene: HealthScene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may run under a number: whoever accepts, acknowledges or pauses is that number."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    who = f"uid {os.getuid()}"
    scene.catalog.alerts.observe(AlertKind.DISK_LOW, Observation("/", "low"), scene.now)
    [alert] = scene.catalog.alerts.active()
    assert run(["gaps", "ack", name(5), "--reason", "x"]) == 0
    assert run(["alerts", "ack", str(alert.id), "--reason", "x"]) == 0
    assert run(["pause", "--for", "1m"]) == 0
    assert [gap.acknowledged_by for gap in scene.catalog.gaps.acknowledged()] == [who]
    assert scene.catalog.alerts.active()[0].acknowledged_by == who
    paused = current_pause(scene.catalog, utc_now())
    assert paused is not None
    assert paused.by == who


def test_a_gap_that_is_not_there_cannot_be_accepted(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the segment and the way out."""
    assert run(["gaps", "ack", name(3), "--reason", "x"]) == 1
    assert capsys.readouterr().err == (
        f"ERROR: no gap begins with segment '{name(3)}'\nHINT: 'wal-pipeline gaps' lists them with their segments.\n"
    )


def test_pause_with_a_reason_that_is_no_text(scene: HealthScene, capsys: pytest.CaptureFixture[str]) -> None:
    """What a terminal sent in another encoding is spelled out."""
    assert run(["pause", "--reason", os.fsdecode(b"caf\xe9")]) == 0
    assert "(caf\\xe9)" in capsys.readouterr().out
    assert run(["gaps", "ack", name(5), "--reason", os.fsdecode(b"caf\xe9")]) == 0
    assert [gap.reason for gap in scene.catalog.gaps.acknowledged()] == ["caf\\xe9"]
    capsys.readouterr()
    assert run(["--env-file", os.fsdecode(b"caf\xe9.env"), "status"]) == 1
    assert "settings file 'caf\\udce9.env' does not exist" in capsys.readouterr().err
