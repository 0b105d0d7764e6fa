"""Tests the warm worker as a program; integration/test_warm_worker.py tests its work."""

import shutil
from pathlib import Path

import pytest

from testbed.dagster_instance import PROJECT
from testbed.warm_workers import INSTANCE_FILE
from wal_pipeline.errors import SettingsError
from wal_pipeline.spool import Spool
from wal_pipeline.worker import _waiting, build_worker, end_run_that_waits, find_redis


def test_an_instance_without_warm_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that would get no runs says so at its start."""
    shutil.copy(PROJECT / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(SettingsError) as caught:
        find_redis()
    assert caught.value.message == (
        f"the run launcher of '{tmp_path}' is 'DefaultRunLauncher', expected 'WarmRunLauncher'"
    )
    assert caught.value.hint == "Use deploy/dagster-workers.yaml as dagster.yaml."


def test_the_worker_looks_where_the_launcher_puts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker reads the Redis URL from the instance's file."""
    shutil.copy(INSTANCE_FILE, tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_REDIS_URL", "redis://:secret@127.0.0.1:6379/3")
    assert find_redis() == "redis://:secret@127.0.0.1:6379/3"


def test_a_worker_takes_runs_from_its_queue_and_nothing_but_runs() -> None:
    """A worker listens to no queue of Dagster or Celery, and reads no pickled message."""
    app = build_worker("redis://127.0.0.1:6379/0", "archive_orders")
    assert list(app.amqp.queues) == ["archive_orders"]
    assert [name for name in app.tasks if not name.startswith("celery.")] == ["execute_job"]
    assert app.conf.accept_content == ["json"]


def test_a_worker_that_is_told_to_stop_does_not_wait_for_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run may linger for long: it sees that the worker wants it to end."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "empty.env").write_text("")
    for name, value in {"PG_WAL_ARCHIVE_DIR": "spool", "WAL_PIPELINE_ENV_FILE": "empty.env"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    spool = Spool(tmp_path / "spool", tmp_path / "quarantine", 60.0)
    end_run_that_waits()
    assert spool.is_wanted()
    _waiting.close()


def test_a_worker_without_a_spool_stops_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is gone is told, and stops no shutdown."""
    (tmp_path / "empty.env").write_text("")
    for name, value in {"PG_WAL_ARCHIVE_DIR": "spool", "WAL_PIPELINE_ENV_FILE": "empty.env"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    end_run_that_waits()
    assert "a run that waits for files is not told to end: spool '" in caplog.text
