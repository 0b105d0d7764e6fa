"""``wal-pipeline check`` as it is typed, against two S3 servers over TLS."""

import json
from pathlib import Path

import pytest

from testbed.ports import free_port
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.tls import TlsFiles
from wal_pipeline.cli.group import run

pytestmark = pytest.mark.integration
STORE_ITEMS = ("bucket and credentials", "write", "read back", "clock", "delete")


@pytest.fixture
def environment(s3_pair: S3Pair, s3_buckets: S3Buckets, tls_files: TlsFiles, tmp_path: Path) -> dict[str, str]:
    """Settings for both stores, a spool, and a PostgreSQL server that does not run."""
    (tmp_path / "spool").mkdir()
    return {
        **s3_pair.store_environment(s3_buckets),
        "WAL_PIPELINE_CA_BUNDLE": str(tls_files.ca_bundle),
        "WAL_PIPELINE_STATE_DIR": str(tmp_path / "state"),
        "PG_WAL_ARCHIVE_DIR": str(tmp_path / "spool"),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(free_port()),
    }


def test_one_store_refuses(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong credentials fail each item of their store, the other store's go well, and no secret is printed."""
    secret = "not-the-secret-access-key"
    monkeypatch.chdir(tmp_path)
    for name, value in {**environment, "R2_SECRET_ACCESS_KEY": secret}.items():
        monkeypatch.setenv(name, value)
    assert run(["check", "--json"]) == 1
    printed = capsys.readouterr().out
    report = json.loads(printed)
    verdicts = {item["name"]: item["ok"] for item in report["items"]}
    assert {name: verdicts[f"b2: {name}"] for name in STORE_ITEMS} == dict.fromkeys(STORE_ITEMS, True)
    assert {name: verdicts[f"r2: {name}"] for name in STORE_ITEMS} == dict.fromkeys(STORE_ITEMS, False)
    assert (verdicts["server"], verdicts["spool"], report["ok"]) == (False, True, False)
    assert not any(value in printed for value in (secret, environment["B2_SECRET_ACCESS_KEY"]))

    assert run(["check"]) == 1
    text = capsys.readouterr().out
    assert "HINT: Set WAL_PIPELINE_CONNINFO or PGHOST, PGPORT" in text
    assert secret not in text
