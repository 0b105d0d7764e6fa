"""``wal-pipeline find`` as it is typed: the screen, JSON, exit codes and refused input."""

import json
import re
import shutil
from pathlib import Path

import pytest

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.cli import find
from wal_pipeline.cli.group import run
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline_tests.support.find_archive import archive, folder_store
from wal_pipeline_tests.support.find_scene import FindScene, played
from wal_pipeline_tests.support.terminal import Terminal

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scene() -> FindScene:
    """A real server's WAL with everything in it."""
    found = played(18)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def stored(scene: FindScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene in a folder store."""
    folder = tmp_path_factory.mktemp("store")
    layout = Layout("", "main", int(scene.cluster.system_identifier))
    archive(folder_store("local", folder), layout, sorted(scene.folder.iterdir()))
    return folder


@pytest.fixture
def typed(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings that name a copy of the store, and no server."""
    folder = tmp_path / "store"
    shutil.copytree(stored, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_STORES", "local")
    monkeypatch.setenv("WAL_PIPELINE_LOCAL_STORE_FOLDER", str(folder))
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", f"host={tmp_path} port=1")
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("columns", [80, None])
def test_the_screen(
    scene: FindScene, typed: Path, monkeypatch: pytest.MonkeyPatch, columns: int | None, encoding: str
) -> None:
    """A heading, the transactions with their relations, how it was looked, and the lines to type; 80 columns do."""
    found = Terminal(columns, encoding).run(["find", "--dropping"], monkeypatch)
    assert found.code == 0
    lines = found.lines
    wanted = {xid for xid, did in scene.truth.items() if did.fates or did.databases}
    listed = [line for line in lines if line[:2] == "20" and line[21:].split(" ")[0].isdigit()]
    assert wanted <= {int(line[21:].split()[0]) for line in listed}
    assert max(len(line) for line in listed) <= 80
    (dropping,) = [xid for xid, did in scene.truth.items() if did.databases]
    assert any(line.startswith(f"Look at transaction {dropping} first: it drops 1 database") for line in lines)
    assert any("restore --to-lsn " in line and line.endswith(" --exclusive") for line in lines)
    assert any("5/" in line and "truncated" in line for line in lines)


@pytest.mark.parametrize("at_once", [2, 500])
def test_json_streams_transactions_and_then_a_summary(
    scene: FindScene, typed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """One object a line, however many are written at once; the summary is the last one and has the lines to type."""
    monkeypatch.setattr(find, "_LINES_AT_ONCE", at_once)
    assert run(["find", "--json"]) == 0
    *transactions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["type"] for one in transactions} == {"transaction"}
    assert set(scene.truth) <= {one["xid"] for one in transactions}
    deleted = {one["xid"]: one["deleted"] for one in transactions}
    bare = {xid: did for xid, did in scene.truth.items() if set(did.rows) == {"orders"}}
    assert {xid: deleted[xid] for xid in bare} == {xid: did.rows["orders"][2] for xid, did in bare.items()}
    assert (summary["type"], summary["transactions"], summary["not_searched"]) == ("summary", len(transactions), [])
    (dropping,) = [xid for xid, did in scene.truth.items() if did.databases]
    assert summary["suspect_xid"] == dropping
    assert re.fullmatch("wal-pipeline restore --to-lsn [0-9A-F]+/[0-9A-F]+ --exclusive", summary["restore"])


def test_json_with_a_limit(typed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as asked for, the biggest first, and how many there were."""
    assert run(["find", "--json", "--limit", "3", "--biggest"]) == 0
    *transactions, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    sizes = [one["wal_bytes"] for one in transactions]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 3 < summary["transactions"]


def test_wal_that_could_not_be_read_is_an_exit_code(
    scene: FindScene, typed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1, and the segment by name; the rest is listed all the same."""
    missing = scene.segments()[6].name
    store = LocalFolderStore("local", typed)
    for key in [item.key for item in store.list("") if missing in item.key]:
        store.delete(key)
    assert run(["find"]) == 1
    out = capsys.readouterr().out
    assert f"NOT SEARCHED: 1 segment missing: '{missing}'" in out
    assert "Look at transaction" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "17:45"], "the moment '17:45' has no day"),
        (["--to", "2026-11-22 17:45"], "the moment '2026-11-22 17:45' has no time zone"),
        (["--min-deletes", "-1"], "--min-deletes is -1, expected 0 or more"),
        (["--relation", "ordres"], "no list of relations knows a relation 'ordres'"),
        (["--timeline", "7"], "no WAL of timeline 7 is archived"),
        (["--store", "r3"], "'r3' is not a store"),
        (["--from", "2030-01-01 00:00:00Z"], "no commit since 2030-01-01 00:00:00+00:00 is archived: the last commit"),
        (["--from", "2000-01-01Z", "--to", "2000-01-02 00:00:00Z"], "--from '2000-01-01Z' is not a time"),
        (
            ["--from", "2000-01-01 00:00:00Z", "--to", "2000-01-02 00:00:00Z"],
            "no WAL between 2000-01-01 00:00:00Z and 2000-01-02 00:00:00Z is archived",
        ),
    ],
)
def test_what_cannot_be_searched_is_said(
    typed: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Exit code 2 or 1 and a sentence with what to do; nothing on stdout."""
    code = run(["find", *arguments])
    printed = capsys.readouterr()
    assert code in (1, 2)
    assert said in printed.err
    assert printed.out == ""
