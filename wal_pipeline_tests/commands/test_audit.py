"""The audit log keeps every line, from several threads, over rotations, and never breaks the work."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_push.audit_trail import audited
from wal_pipeline.commands.archive_push.events import CopyFailed, FileQuarantined, QuarantineReason
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.errors import SpoolError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def lines(folder: Path) -> list[dict[str, object]]:
    """Return all lines of all files."""
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def test_a_line(tmp_path: Path) -> None:
    """A line says when, what, to what, with what result, and who."""
    AuditLog(tmp_path / "state", lambda: NOW).write(
        "delete", "main/x", "deleted", by="run 1", store="r2", why=Path("/a")
    )
    assert lines(tmp_path / "state") == [
        {
            "at": "2026-11-22T12:00:00.000+00:00",
            "action": "delete",
            "subject": "main/x",
            "result": "deleted",
            "by": "run 1",
            "store": "r2",
            "why": "/a",
        }
    ]
    assert (tmp_path / "state" / "audit.jsonl").stat().st_mode & 0o077 == 0


def test_nothing_is_lost_over_rotations(tmp_path: Path) -> None:
    """Many threads with logs of their own, as processes have, lose no line while files are set aside."""
    logs = [AuditLog(tmp_path, lambda: NOW, max_bytes=4096, files=1000) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: logs[n % 4].write("copy", f"file {n}", "verified", by="me"), range(400)))
    assert sorted(str(line["subject"]) for line in lines(tmp_path)) == sorted(f"file {n}" for n in range(400))
    assert len(list(tmp_path.iterdir())) > 5


def test_old_files_are_dropped(tmp_path: Path) -> None:
    """No more files than asked for are kept, the newest of them."""
    log = AuditLog(tmp_path, lambda: NOW, max_bytes=100, files=2)
    for number in range(10):
        log.write("copy", f"file {number}", "verified", by="me")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert lines(tmp_path)[0]["subject"] == "file 9"


def test_a_log_that_cannot_be_written_breaks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The work goes on with a warning."""
    (tmp_path / "file").write_text("")
    AuditLog(tmp_path / "file", lambda: NOW).write("copy", "x", "verified", by="me")
    path = tmp_path / "file" / "audit.jsonl"
    assert caplog.messages == [f"audit log '{path}' cannot be written: File exists"]


def test_work_is_told_when_it_ends(tmp_path: Path) -> None:
    """With what it found out about itself, or why it failed; a stranger's error is named, and may say what it wants."""
    log = AuditLog(tmp_path, lambda: NOW)
    with log.work("base backup", "main", by="run 1") as told:
        told.update(subject="an id", result="restorable", kind="full")
    with pytest.raises(SpoolError), log.work("restore", "main", by="run 2", store="r2"):
        raise SpoolError("it is full", hint="empty it")
    with pytest.raises(KeyboardInterrupt), log.work("restore", "main", by="run 3"):
        raise KeyboardInterrupt
    found = [{name: value for name, value in line.items() if name != "at"} for line in lines(tmp_path)]
    assert found == [
        {"action": "base backup", "subject": "an id", "result": "restorable", "by": "run 1", "kind": "full"},
        {
            "action": "restore",
            "subject": "main",
            "result": "failed",
            "by": "run 2",
            "store": "r2",
            "message": "it is full",
        },
        {"action": "restore", "subject": "main", "result": "failed", "by": "run 3", "message": "KeyboardInterrupt"},
    ]


def test_a_signed_log_names_its_signer(tmp_path: Path) -> None:
    """Only where the line names nobody else; the log that was signed stays as it was."""
    log = AuditLog(tmp_path, lambda: NOW)
    signed = log.signed("run 7")
    signed.write("clone", "main", "made")
    signed.write("clone", "main", "made", by="somebody")
    log.signed(None).write("clone", "main", "made", by="else")
    log.write("clone", "main", "made")
    found = [line["by"] for line in lines(tmp_path)]
    assert found[:3] == ["run 7", "somebody", "else"]
    assert found[3] != "run 7"


def test_follow_passes_events_on(tmp_path: Path) -> None:
    """Each event is written down and given on; leaving early ends the source too."""
    ended = []

    def source():  # type: ignore[no-untyped-def]
        try:
            yield CopyFailed("A", "r2", "no answer")
            yield FileQuarantined("B", QuarantineReason.NOT_WHOLE, "half", tmp_path / "q")
            yield CopyFailed("never", "r2", "asked for")
        finally:
            ended.append(True)

    log = AuditLog(tmp_path / "state", lambda: NOW)
    followed = audited(source(), log, by="run 7")
    assert [next(followed).name, next(followed).name] == ["A", "B"]  # type: ignore[union-attr]
    followed.close()  # type: ignore[attr-defined]
    assert ended == [True]
    found = [(line["action"], line["subject"], line["result"], line["by"]) for line in lines(tmp_path / "state")]
    assert found == [("copy", "A", "failed", "run 7"), ("archive", "B", "quarantined", "run 7")]
