"""``wal-pipeline archive`` as typed: its exit codes, its messages and its JSON."""

import json
import subprocess
from pathlib import Path

import pytest
import zstandard

from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.cli.group import run
from wal_pipeline.codec.age import decrypt, load_identities
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.spool import Spool
from wal_pipeline_tests.support.archive_scene import contents, folder_store
from wal_pipeline_tests.support.segments import (
    OTHER_SYSTEM_IDENTIFIER,
    SYSTEM_IDENTIFIER,
    name_of,
    segment_bytes,
    spool_segments,
)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spool of the settings in the environment; the store is a folder."""
    folder = tmp_path / "spool"
    folder.mkdir()
    folder_store("local", tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PG_WAL_ARCHIVE_DIR": str(folder),
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(tmp_path / "store"),
        "WAL_PIPELINE_STATE_DIR": str(tmp_path / "state"),
        "WAL_PIPELINE_SYSTEM_IDENTIFIER": str(SYSTEM_IDENTIFIER),
        "WAL_PIPELINE_CODEC": "zstd",
        "WAL_PIPELINE_CONNINFO": "host=127.0.0.1 port=1 connect_timeout=1",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def test_everything_is_archived(spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and one line that says how much."""
    made = spool_segments(spool, [1, 2, 3])
    assert run(["archive"]) == 0
    assert capsys.readouterr().out == "3 archived, 0 left in the spool\n"
    assert contents(folder_store("local", tmp_path / "store")) == made


def test_no_ssh_recipient_ends_archiving(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both halves of an SSH public key were taken for recipients of their own, with a comment and without."""
    keys = []
    for number in (1, 2):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / f"k{number}"], check=True)
        keys.append((tmp_path / f"k{number}.pub").read_text())
    monkeypatch.setenv("WAL_PIPELINE_AGE_RECIPIENTS", "".join(keys))
    made = spool_segments(spool, [1])
    assert run(["archive"]) == 0
    store = folder_store("local", tmp_path / "store")
    [item] = [item for item in store.list("") if name_of(1) in item.key]
    for key in ("k1", "k2"):
        with store.open(item.key) as stream:
            plain = decrypt(stream.read(), load_identities(tmp_path / key))
        assert zstandard.ZstdDecompressor().decompress(plain, max_output_size=1 << 24) == made[name_of(1)]


def test_an_empty_spool(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to do is no error."""
    assert run(["archive", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("seconds") >= 0
    assert summary == {"released": 0, "copies_failed": 0, "quarantined": 0, "spool_left": 0}


def test_a_file_in_quarantine(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the file and its place are named, and an alert is open."""
    monkeypatch.setattr(PostgresServer, "system_identifier", lambda _server: SYSTEM_IDENTIFIER)
    spool_segments(spool, [1], system_identifier=OTHER_SYSTEM_IDENTIFIER)
    spool_segments(spool, [2])
    assert run(["archive", "--json"]) == 1
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert (summary["released"], summary["quarantined"], summary["spool_left"]) == (1, 1, 0)
    (path,) = (tmp_path / "spool-quarantine").iterdir()
    assert f"'{name_of(1)}' is of the cluster with system identifier {OTHER_SYSTEM_IDENTIFIER}, " in printed.err
    assert f"; moved to {next((tmp_path / 'spool-quarantine').iterdir())}\n" in printed.err
    catalog = open_catalog(f"sqlite:///{tmp_path}/state/catalog.sqlite", "main")
    assert [alert.subject for alert in catalog.alerts.active()] == [name_of(1)]
    assert path.read_bytes() == segment_bytes(1, system_identifier=OTHER_SYSTEM_IDENTIFIER)


def test_a_store_that_is_not_there(spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the store's own words, and everything is still in the spool."""
    made = spool_segments(spool, [1])
    (tmp_path / "store").rename(tmp_path / "unmounted")
    assert run(["archive", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["spool_left"] == 1
    assert f"{name_of(1)}: local: folder '{tmp_path}/store" in printed.err
    assert (spool / name_of(1)).read_bytes() == made[name_of(1)]


def test_a_spool_that_is_not_there(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, with the folder and a way out."""
    spool.rmdir()
    assert run(["archive"]) == 1
    error = capsys.readouterr().err
    assert f"ERROR: spool '{spool}' cannot be " in error
    assert "\nHINT: PG_WAL_ARCHIVE_DIR must name a folder that PostgreSQL writes" in error


def test_a_second_one(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While another process archives, it ends with 1 and says so."""
    made = spool_segments(spool, [1])
    with Spool(spool, spool, 60).lock():
        assert run(["archive"]) == 1
    error = capsys.readouterr().err
    assert f"ERROR: spool '{spool}' is being archived by another process\nHINT: Wait for the archiving run" in error
    assert (spool / name_of(1)).read_bytes() == made[name_of(1)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("WAL_PIPELINE_STORES=r2", "ERROR: settings are missing: R2_ACCOUNT_ID, R2_BUCKET_NAME, "),
        ("WAL_PIPELINE_CODEK=zstd", "ERROR: unknown settings: 'WAL_PIPELINE_CODEK'\nHINT: "),
        ("WAL_PIPELINE_CODEC_LEVEL=20000", "ERROR: WAL_PIPELINE_CODEC_LEVEL: Input should be "),
        ("WAL_PIPELINE_CATALOG_URL=oracle://secret@host/x", "ERROR: "),
    ],
)
def test_wrong_settings(
    spool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    """Exit code 1, the setting's name, no secret, and the spool untouched."""
    made = spool_segments(spool, [1])
    monkeypatch.setenv(*setting.split("=", 1))
    assert run(["archive"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "secret" not in error
    assert {path.name for path in spool.iterdir() if path.name[0] != "."} == set(made)


def test_a_command_line_that_is_not_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    assert run(["archive", "--no-such-option"]) == 2
    assert "No such option" in capsys.readouterr().err
