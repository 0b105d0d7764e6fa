"""The commands that show and remake the records: list, catalog rebuild, alerts."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from wal_pipeline.archive.alerts import AlertKind, Observation
from wal_pipeline.archive.records import Codec, CopyStatus, DamagedPages, Encoding
from wal_pipeline.catalog import schema
from wal_pipeline.catalog.backups import BaseBackupCopy
from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline.cli.group import run
from wal_pipeline.commands.ship.records import RecordedPiece, ShippedTail, put_tail
from wal_pipeline.stores.local.store import LocalFolderStore
from wal_pipeline.text import moment_text, size
from wal_pipeline_tests.support.catalog_records import NOON, SYSTEM_IDENTIFIER, base_backup, copy_of, segment
from wal_pipeline_tests.support.pieces import cut
from wal_pipeline_tests.support.rebuilt_archive import archive, put
from wal_pipeline_tests.support.receiver import SECRET, Receiver


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """The catalog that the command line opens, of a cluster with a folder as its store."""
    (tmp_path / "store").mkdir()
    LocalFolderStore("local", tmp_path / "store").prepare()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAL_PIPELINE_STORES", "local")
    monkeypatch.setenv("WAL_PIPELINE_LOCAL_STORE_FOLDER", str(tmp_path / "store"))
    monkeypatch.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/catalog.sqlite")
    opened = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", "main")
    yield opened
    opened.close()


def record(catalog: Catalog) -> None:
    for number in (1, 2):
        catalog.files.record_verified(segment(number), [copy_of(segment(number), "local")])
    catalog.files.record_failed(segment(3), copy_of(segment(3), "local", CopyStatus.FAILED))


def test_a_base_backup_is_listed_with_all_that_is_said_of_it(
    catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kind, method, sizes, copies by their state, note and damaged pages stand below its id, in 80 columns."""
    damaged = (DamagedPages("base/5/16384", (3,), 1),)
    backup = replace(base_backup(), note="before [the] upgrade", fetched_size_bytes=5000, damaged_pages=damaged)
    b2 = BaseBackupCopy(backup.backup_id, SYSTEM_IDENTIFIER, "b2", CopyStatus.VERIFIED, 7, 1000, restorable_at=NOON)
    copies = [b2, replace(b2, store="r2"), replace(b2, store="gone", status=CopyStatus.MISSING)]
    catalog.base_backups.record(backup, copies)
    assert run(["list", "--base-backups"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{backup.backup_id}  full, local",
        f"  finished {moment_text(backup.finished_at)} UTC, {size(backup.size_bytes)}, "
        f"stored as {size(backup.stored_size_bytes)}",
        "  b2 and r2: verified, restorable",
        "  gone: missing, not restorable",
        "  note: before [the] upgrade",
        "  damaged pages: 'base/5/16384' block 3",
        "base backups: 1",
    ]


def test_list_as_json(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has its copies; the system identifier is exact."""
    record(catalog)
    assert run(["list", "--json", "--status", "failed"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": segment(3).name,
            "kind": "segment",
            "system_identifier": str(SYSTEM_IDENTIFIER),
            "timeline": 1,
            "size_bytes": 16 << 20,
            "sha256": "a" * 64,
            "start_lsn": "0/3000000",
            "end_lsn": "0/4000000",
            "spooled_at": (NOON + timedelta(seconds=3)).isoformat(),
            "first_commit_at": NOON.isoformat(),
            "last_commit_at": (NOON + timedelta(microseconds=1)).isoformat(),
            "copies": {
                "local": {
                    "status": "failed",
                    "object_key": f"main/{SYSTEM_IDENTIFIER}/wal/{segment(3).name}.zst",
                    "codec": None,
                    "encrypted": None,
                    "stored_size_bytes": None,
                    "stored_sha256": None,
                    "tries": 3,
                    "last_error": "local: connection refused",
                    "verified_at": None,
                    "lag_seconds": None,
                }
            },
        }
    ]


def test_list_as_table(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets every column whole, then the errors."""
    record(catalog)
    assert run(["list", "--since", "2026-11-22T12:00:02Z"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["file", "spooled", "(UTC)", "last", "commit", "(UTC)", "local"],
        [segment(2).name, "2026-11-22", "12:00:02", "2026-11-22", "12:00:00", "verified", "1", "KiB"],
        [segment(3).name, "2026-11-22", "12:00:03", "2026-11-22", "12:00:00", "failed"],
        ["files:", "2"],
        [f"{segment(3).name}:", "local:", "connection", "refused", "(tries:", "3)"],
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--store", "s3"], "ERROR: 's3' is not a store, expected one of local\n"),
        (["--since", "soon"], "ERROR: 'soon' is not a moment\nHINT: "),
    ],
)
def test_list_refuses_what_it_does_not_know(
    catalog: Catalog, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    """A misspelt filter is an error, not an empty list."""
    assert run(["list", *arguments]) == 1
    assert capsys.readouterr().err.startswith(error)


def test_rebuild_command(catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old tables are set aside; what the store holds is recorded, what is not as it should be is told."""
    with catalog.database.write() as connection:
        connection.execute(update(schema.schema_version).values(version=999))
    catalog.close()
    store = LocalFolderStore("local", tmp_path / "store")
    put(store, "main/notes.txt")
    archive(store, segment(1), prefix="")
    assert run(["list"]) == 1
    assert "Run 'wal-pipeline catalog rebuild'" in capsys.readouterr().err
    assert run(["catalog", "rebuild"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "local: copies 1, base backups 0",
        "  not ours, left alone (1):",
        "    main/notes.txt",
    ]
    assert f"the old catalog was set aside: {tmp_path}/catalog.sqlite." in shown.err
    assert run(["list", "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)] == [segment(1).name]


def test_rebuild_command_with_a_store_down(
    catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that was not read is no success."""
    (tmp_path / "store").rename(tmp_path / "unmounted")
    assert run(["catalog", "rebuild", "--json"]) == 1
    [store] = json.loads(capsys.readouterr().out)["stores"]
    assert store["error"].startswith("local: ")


def test_alerts_are_listed_and_acknowledged(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """What is open is shown with its number; acknowledging says who and why."""
    assert run(["alerts"]) == 0
    assert capsys.readouterr().out.startswith(
        "no open alerts are recorded; Dagster's health sensor has not looked yet: 'wal-pipeline status' looks now"
    )
    catalog.alerts.observe(AlertKind.STORE_DOWN, Observation("r2", "r2: connection refused"), NOON)
    [alert] = catalog.alerts.active()
    assert run(["alerts", "ack", str(alert.id), "--reason", "provider's outage", "--by", "ann"]) == 0
    capsys.readouterr()
    assert run(["alerts"]) == 0
    assert capsys.readouterr().out == (
        f"{alert.id:>5}  warning   store_down r2: r2: connection refused\n"
        "       since 2026-11-22 12:00:00Z, times seen 1\n"
        "       acknowledged by ann: provider's outage\n"
    )
    assert run(["alerts", "list", "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["opened_at"], shown["resolved_at"]) == ("store_down", NOON.isoformat(), None)


def test_unknown_alert_is_an_error(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong number changes nothing and says so."""
    assert run(["alerts", "ack", "7", "--reason", "x"]) == 1
    assert capsys.readouterr().err == "ERROR: no alert 7 is open\nHINT: See 'wal-pipeline alerts' for the open ones.\n"


def test_notifications_can_be_tried(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each URL is told by position; its secret is not shown, and a refusal is no success."""
    receiver = Receiver()
    monkeypatch.setenv("WAL_PIPELINE_NOTIFICATION_URLS", receiver.url)
    try:
        assert run(["alerts", "test"]) == 0
        receiver.status = 403
        assert run(["alerts", "test"]) == 1
    finally:
        receiver.stop()
    shown = capsys.readouterr()
    assert shown.out == "1 (json): sent\n1 (json): refused with status 403\n"
    assert SECRET not in shown.out + shown.err
    assert [message["title"] for message in receiver.messages] == ["wal-pipeline main: test"]


def test_alert_of_a_failed_run_is_closed(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """A person ends what nothing else may end; an alert whose cause is looked at is not closed."""
    catalog.alerts.observe(AlertKind.RUN_FAILED, Observation("restore_cluster", "run x failed"), NOON)
    catalog.alerts.observe(AlertKind.STORE_DOWN, Observation("r2", "r2: connection refused"), NOON)
    failed, down = catalog.alerts.active()
    assert run(["alerts", "close", str(failed.id), "--reason", "restored by hand", "--by", "ann"]) == 0
    assert f"{failed.id:>5}  warning   run_failed restore_cluster: run x failed" in capsys.readouterr().out
    assert run(["alerts", "close", str(down.id), "--reason", "x"]) == 1
    assert capsys.readouterr().err == (
        f"ERROR: alert {down.id} is of kind 'store_down', which ends when its cause is gone\n"
        "HINT: 'wal-pipeline alerts ack' tells others that a person knows of it.\n"
    )
    assert run(["alerts", "close", str(failed.id), "--reason", "x"]) == 1
    assert [alert.id for alert in catalog.alerts.active()] == [down.id]


def test_alerts_are_delivered_without_dagster(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One look by a cron job sends what is new; a catalog that cannot be opened is told once, and its end once."""
    receiver = Receiver()
    monkeypatch.setenv("WAL_PIPELINE_NOTIFICATION_URLS", receiver.url)
    monkeypatch.setenv("WAL_PIPELINE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("WAL_PIPELINE_DISK_LOW_SHARE", "0")
    monkeypatch.setenv("WAL_PIPELINE_CONNINFO", f"host={tmp_path} port=1")
    monkeypatch.setenv("PG_WAL_ARCHIVE_DIR", str(tmp_path / "no spool"))
    (tmp_path / "state").mkdir()
    try:
        assert run(["alerts", "deliver"]) == 0
        titles = ["wal-pipeline main: 2 opened"]
        assert [message["title"] for message in receiver.messages] == titles
        with monkeypatch.context() as broken:
            broken.setenv("WAL_PIPELINE_CATALOG_URL", f"sqlite:///{tmp_path}/state")
            assert [run(["alerts", "deliver"]) for _ in range(3)] == [1, 1, 1]
        titles += ["wal-pipeline main: 2 opened"]
        assert [message["title"] for message in receiver.messages] == titles
        assert run(["alerts", "deliver"]) == 0
        titles += ["wal-pipeline main: 1 resolved"]
        assert [message["title"] for message in receiver.messages] == titles
        assert not (tmp_path / "state" / "catalog-outage").exists()
    finally:
        receiver.stop()
    assert [line.split(",")[0].split(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        "1 no_new_wal",
        *["1 catalog_down"] * 3,
        "1 no_new_wal",
    ]


def test_deliver_needs_a_destination(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """Without one it would look and tell nobody."""
    assert run(["alerts", "deliver"]) == 1
    assert capsys.readouterr().err == (
        "ERROR: WAL_PIPELINE_NOTIFICATION_URLS is not set\nHINT: Give it one or more Apprise URLs.\n"
    )


def record_tail(catalog: Catalog) -> None:
    """Record files, and one piece of 4,096 bytes as what the store has of the open segment."""
    record(catalog)
    name, data = "000000010000000000000007", bytes(4096)
    [piece] = cut(name, data, [0, 4096], system_identifier=SYSTEM_IDENTIFIER, wal_segment_size=16 << 20)
    recorded = RecordedPiece(
        piece, Encoding(Codec.GZIP, encrypted=False, size_bytes=2048, sha256="b" * 64, md5="c" * 32)
    )
    tail = ShippedTail("local", SYSTEM_IDENTIFIER, 1, (recorded,), piece.end_lsn, NOON, None, None, None, None)
    put_tail(catalog.values, tail)


def test_list_shows_the_pieces_of_the_tail(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each piece and store, and in JSON what its object says."""
    record_tail(catalog)
    assert run(["list", "--tail", "--json"]) == 0
    [piece] = json.loads(capsys.readouterr().out)
    wanted = {
        "store": "local",
        "segment": "000000010000000000000007",
        "system_identifier": str(SYSTEM_IDENTIFIER),
        "from": 0,
        "to": 4096,
        "end_lsn": "0/7001000",
        "codec": "gzip",
        "stored_size_bytes": 2048,
    }
    assert wanted.items() <= piece.items()
    assert run(["list", "--tail"]) == 0
    text = capsys.readouterr().out
    assert "000000010000000000000007" in text
    assert "pieces: 1, as the shipper recorded them" in text
    assert run(["list", "--tail", "--status", "failed"]) != 0


def test_cost_counts_pieces_and_estimates_shipping(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the interval that is set and at the usual ones; not a word of it where nothing is shipped."""
    record_tail(catalog)
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "2")
    assert run(["cost", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    files = sum(one.stored_bytes for one in catalog.files.totals())
    assert found["stores"]["local"]["stored_bytes"] == files + 2048
    assert found["shipping"]["piece_bytes"] == {"local": 2048}
    assert [one["interval_seconds"] for one in found["shipping"]["estimates"]] == [1, 2, 5, 10]
    assert run(["cost"]) == 0
    assert "every 2 s (as set): local $0.00" in capsys.readouterr().out
    monkeypatch.setenv("WAL_PIPELINE_SHIP_INTERVAL_SECONDS", "off")
    assert run(["cost", "--json"]) == 0
    assert "shipping" not in json.loads(capsys.readouterr().out)
