"""``wal-pipeline status`` over several settings files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal_pipeline.cli.group import run
from wal_pipeline.wiring.pipeline import utc_now
from wal_pipeline_tests.support.health_scene import HealthScene
from wal_pipeline_tests.support.terminal import Terminal


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """Five settings files, and an environment that would make them all one cluster."""
    made = {}
    for name in ("well", "bad", "new"):
        folder = tmp_path / name
        folder.mkdir()
        scene = HealthScene(folder, now=utc_now())
        if name != "new":
            scene.archive(*range(1, 11))
            scene.back_up(2)
        if name == "bad":
            scene.quarantine(3)
        scene.catalog.close()
        made[name] = folder / "own.env"
        made[name].write_text(
            f"WAL_PIPELINE_CLUSTER=main\nWAL_PIPELINE_CATALOG_URL=sqlite:///{folder}/catalog.sqlite\n"
            f"WAL_PIPELINE_STATE_DIR={folder}/state\nPG_WAL_ARCHIVE_DIR={folder}/spool\n"
            f"WAL_PIPELINE_CONNINFO=host={folder} port=1\nWAL_PIPELINE_DISK_LOW_SHARE=0\n"
        )
    made["broken"] = tmp_path / "broken.env"
    made["broken"].write_text("WAL_PIPELINE_CLUSTR=orders\n")
    made["gone"] = tmp_path / "gone.env"
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/bad/catalog.sqlite")
    monkeypatch.setenv("PG_WAL_ARCHIVE_DIR", str(tmp_path / "bad/spool"))
    yield made


def look(files: dict[str, Path], *names: str, more: tuple[str, ...] = ()) -> int:
    """Run status over some files."""
    return run(["status", *more, *(word for name in names for word in ("--env-file", str(files[name])))])


def test_one_line_for_each_the_worst_first(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that cannot be read are a line too, and no cluster takes the settings of another or of the shell."""
    assert look(files, "well", "broken", "new", "bad", "gone") == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["verdict", "CRITICAL", "UNKNOWN", "UNKNOWN", "UNKNOWN", "OK"]
    assert "quarantine" in lines[1]
    said = "\n".join(lines[2:5])
    assert "unknown settings: 'WAL_PIPELINE_CLUSTR'" in said
    assert f"settings file '{files['gone']}' does not exist" in said
    assert "this host has no records of cluster 'main'" in said
    assert lines[5].rstrip().endswith("nothing")


@pytest.mark.parametrize(
    ("names", "code"), [(("well", "well"), 0), (("well", "new"), 3), (("well", "broken"), 3), (("broken", "bad"), 2)]
)
def test_the_exit_code_is_not_better_than_the_worst(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], names: tuple[str, ...], code: int
) -> None:
    """As a line, as the lines of a Nagios plugin and as JSON."""
    assert look(files, *names) == code
    capsys.readouterr()
    assert look(files, *names, more=("--check",)) == code
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"WAL-PIPELINE {['OK', 'WARNING', 'CRITICAL', 'UNKNOWN'][code]} - ")
    assert look(files, *names, more=("--json",)) == code
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2
    assert all({"cluster", "verdict", "env_file"} <= one.keys() for one in found)


def test_one_file_is_the_whole_screen(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who writes the option behind the command means that cluster; twice it is refused."""
    monkeypatch.delenv("WAL_PIPELINE_CATALOG_URL")
    assert run(["--env-file", str(files["well"]), "status", "--env-file", str(files["bad"])]) == 2
    assert "Give --env-file before 'status' or after it, not both." in capsys.readouterr().err
    assert look(files, "new") == 1
    assert f"'wal-pipeline --env-file {files['new']} catalog rebuild' asks the stores" in capsys.readouterr().out


def test_on_a_narrow_terminal_only_the_last_column_is_cut(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, verdicts and moments are whole: they are what the table is for."""
    named = [word for name in ("well", "bad") for word in ("--env-file", str(files[name]))]
    lines = Terminal(80, "utf-8").run(["status", *named], monkeypatch).lines
    assert lines[0].split() == ["verdict", "cluster", "recoverable", "to", "(UTC)", "RPO", "needs", "a", "person"]
    assert [line.split()[:2] for line in lines[1:]] == [["CRITICAL", "main"], ["OK", "main"]]
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in lines[2]
