"""``wal-pipeline expire`` and ``wal-pipeline verify`` as typed."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from wal_pipeline.cli import group
from wal_pipeline.cli.group import run
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.text import size
from wal_pipeline_tests.support.damage import damage
from wal_pipeline_tests.support.pieces import cut, put_pieces
from wal_pipeline_tests.support.segments import SEGMENT_BYTES, SYSTEM_IDENTIFIER, name_of, segment_bytes
from wal_pipeline_tests.support.upkeep_pipeline import scene_pipeline
from wal_pipeline_tests.support.upkeep_scene import LAYOUT, UpkeepScene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UpkeepScene:
    """What the command line opens: 24 days, ten of them kept."""
    made = UpkeepScene(tmp_path)
    made.run_for(24)
    monkeypatch.setattr(group, "open_pipeline", lambda _env_file: scene_pipeline(made))
    return made


def test_expire_prints_the_plan_and_does_it_only_when_confirmed(
    scene: UpkeepScene, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row for each reason; the last line says that nothing was removed."""
    before = scene.keys("r2")
    assert run(["expire"]) == 0
    text = capsys.readouterr().out
    assert f"r2, system identifier {SYSTEM_IDENTIFIER}" in text
    assert "the newest base backup before the window began, on the path to timeline 1" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("may go") and " files " in line]
    assert [row[3] for row in rows] == ["12", "12"]
    assert text.splitlines()[-1] == "this is a plan: nothing was removed; 'wal-pipeline expire --confirm' does it"
    assert scene.keys("r2") == before
    assert run(["expire", "--confirm"]) == 0
    assert "r2: removed 12 files and 3 base backups, 21 versions," in capsys.readouterr().out
    assert len(scene.files("r2")) == 12


def test_expire_beside_damage_removes_nothing_and_exits_1(
    scene: UpkeepScene, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what is damaged and the way out, as a plan and confirmed; once it is healed, it goes on."""
    damage(scene, "b2", name_of(20), "deleted")
    before = scene.keys("b2")
    for arguments in (["expire"], ["expire", "--confirm"]):
        assert run(arguments) == 1
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
        assert told[0].startswith("PROBLEM: b2: nothing expires while 1 copy on it may be needed and cannot be used. ")
        assert "'wal-pipeline verify --repair'" in told[0]
        assert told[1:] == [f"PROBLEM: b2: '{name_of(20)}' is not there"]
    assert scene.keys("b2") == before
    assert len(scene.files("r2")) == 12
    assert run(["verify", "--repair"]) == 0
    assert run(["expire", "--confirm"]) == 0
    assert len(scene.files("b2")) == 12


def test_expire_as_json_has_every_file_with_its_reason(scene: UpkeepScene, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, for programs."""
    assert run(["expire", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["confirmed"], told["complete"], told["retention_days"]) == (False, True, 10)
    r2 = told["stores"][0]
    assert (r2["store"], r2["hidden_bytes"], r2["refusal"]) == ("r2", 0, None)
    assert len(r2["keep"]) == 12 + 3
    assert len(r2["expire"]) == 12 + 2 * 3
    first = r2["expire"][-12]
    assert (first["name"], first["step"]) == (name_of(1), "wal_file")
    assert first["reason"].startswith("before the start of base backup ")


def test_verify_says_what_is_wrong_and_exits_1(scene: UpkeepScene, capsys: pytest.CaptureFixture[str]) -> None:
    """0 once it is healed."""
    assert run(["verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all is right"
    damage(scene, "b2", name_of(20), "deleted")
    assert run(["verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [f"missing: b2: '{name_of(20)}' is not there", "not all is right"]
    assert run(["verify", "--deep", "--repair"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [f"missing: b2: '{name_of(20)}' is not there; refilled from r2", "all is right"]


def test_verify_as_json(scene: UpkeepScene, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault with what became of it."""
    damage(scene, "b2", name_of(20), "bit turned")
    assert run(["verify", "--deep", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["deep"], told["right"], told["stores"]["b2"]["copies"]) == (True, False, 24 + 6)
    [fault] = told["faults"]
    assert (fault["store"], fault["name"], fault["fault"], fault["lost"]) == ("b2", name_of(20), "corrupt", False)
    assert fault["repaired_from"] is None


def test_a_share_is_for_deep_only(scene: UpkeepScene, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line is not understood."""
    assert run(["verify", "--share", "0.5"]) == 2
    assert "--share is for --deep" in capsys.readouterr().err


def test_expire_with_a_doubtful_clock(scene: UpkeepScene, capsys: pytest.CaptureFixture[str]) -> None:
    """Confirmed, it refuses and names the option that goes on."""
    scene.now += timedelta(days=365)
    before = scene.keys("r2")
    assert run(["expire", "--confirm"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[-3:]] == ["PROBLEM", "PROBLEM", "HINT"]
    assert "'wal-pipeline expire --confirm --trust-clock' goes on." in lines[-1]
    assert scene.keys("r2") == before
    assert run(["expire", "--confirm", "--trust-clock"]) == 0
    assert scene.keys("r2") != before


def test_expire_and_verify_count_pieces(scene: UpkeepScene, capsys: pytest.CaptureFixture[str]) -> None:
    """As a plan, confirmed and verified, in text and in JSON."""
    data = segment_bytes(24)
    pieces = cut(
        name_of(24), data, [0, 8192, 16384], system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=SEGMENT_BYTES
    )
    stored = sum(
        len(scene.read("b2", key)) for key in put_pieces(ClusterStore(scene.stores["b2"].inner, LAYOUT), pieces, data)
    )
    assert run(["verify"]) == 0
    assert f"b2: 2 pieces of open segments, {size(stored)}, 2 superseded" in capsys.readouterr().out
    assert run(["expire"]) == 0
    assert f"; of these 2 pieces ({size(stored)}) may go" in capsys.readouterr().out
    assert run(["expire", "--json"]) == 0
    [going] = [one for one in json.loads(capsys.readouterr().out)["stores"][1]["expire"] if one["step"] == "pieces"]
    assert (going["name"], going["pieces"], going["bytes"]) == (f"tail/{name_of(24)}", 2, stored)
    assert run(["expire", "--confirm"]) == 0
    assert f", among them 2 pieces ({size(stored)})" in capsys.readouterr().out
