"""Is archiving working now: each item by itself, on a real server and real stores."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from testbed.ports import free_port
from testbed.postgres import PostgresCluster
from wal_pipeline.commands.check.check import check
from wal_pipeline.commands.check.item import CheckItem
from wal_pipeline.commands.check.store import StoreCheck
from wal_pipeline.commands.setup.plan import WantedArchiving
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.postgres.server import PostgresServer
from wal_pipeline.spool import Spool
from wal_pipeline.stores.base import Body, PutOutcome
from wal_pipeline.stores.local.store import LocalFolderStore

PREFIX = "wal/main/"


def utc_now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalFolderStore:
    """An empty folder as a store, called ``b2``."""
    (tmp_path / "store").mkdir()
    made = LocalFolderStore("b2", tmp_path / "store")
    made.prepare()
    return made


def results(items: tuple[CheckItem, ...]) -> dict[str, str]:
    return {item.name: f"{'ok' if item.ok else 'failed'}: {item.message}" for item in items}


def test_a_good_store(store: LocalFolderStore) -> None:
    """All items of a store go well, and nothing is left in it."""
    assert results(StoreCheck(store, PREFIX, utc_now).run()) == {
        "b2: bucket and credentials": "ok: the bucket answers",
        "b2: write": "ok: wrote 1024 bytes",
        "b2: read back": "ok: the same bytes came back",
        "b2: clock": "ok: this host's clock agrees with the store's",
        "b2: delete": "ok: removed it again",
    }
    assert list(store.list("")) == []


@pytest.mark.parametrize(("hours", "direction"), [(1, "ahead of"), (-1, "behind")])
def test_a_wrong_clock(hours: int, direction: str, store: LocalFolderStore) -> None:
    """A clock that is far off is found by the time that the store gave the object."""
    items = results(StoreCheck(store, PREFIX, lambda: utc_now() + timedelta(hours=hours, seconds=0.4)).run())
    assert items["b2: clock"].startswith("failed: b2: this host's clock is 36") or items["b2: clock"].startswith(
        "failed: b2: this host's clock is 35"
    )
    assert items["b2: clock"].endswith(f" s {direction} the store's")
    assert items["b2: delete"] == "ok: removed it again"


class LostAnswerStore(LocalFolderStore):
    """Stores the object, and then its answer is lost."""

    def put_if_absent(self, key: str, body: Body, metadata: Mapping[str, str]) -> PutOutcome:
        """Store and fail."""
        super().put_if_absent(key, body, metadata)
        raise StoreUnavailableError(self.name, "the connection was closed before an answer came")


def test_a_lost_answer_leaves_nothing(store: LocalFolderStore, tmp_path: Path) -> None:
    """Where the write seemed to fail but was done, the object is removed all the same."""
    items = results(StoreCheck(LostAnswerStore("b2", tmp_path / "store"), PREFIX, utc_now).run())
    assert items["b2: write"] == "failed: b2: the connection was closed before an answer came"
    assert {items[f"b2: {name}"] for name in ("read back", "clock", "delete")} == {
        "failed: b2: not tried, because the write failed"
    }
    assert list(store.list("")) == []


class DamagingStore(LocalFolderStore):
    """Gives back other bytes than it holds."""

    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Return the object without its first byte."""
        return super().open(key, start=start + 1)


@pytest.mark.usefixtures("store")
def test_other_bytes_come_back(tmp_path: Path) -> None:
    """A store that gives back other bytes fails, though every call succeeded."""
    items = results(StoreCheck(DamagingStore("b2", tmp_path / "store"), PREFIX, utc_now).run())
    assert items["b2: read back"].startswith("failed: b2: object 'wal/main/check/")
    assert items["b2: read back"].endswith("' has other bytes than were written (1023 of them)")


def test_every_item_runs(store: LocalFolderStore, tmp_path: Path) -> None:
    """With the server down, the spool gone and one store without its folder, the other store is still checked."""
    gone = LocalFolderStore("r2", tmp_path / "no store")
    server = PostgresServer(f"host=127.0.0.1 port={free_port()} user=postgres")
    spool = Spool(tmp_path / "no spool", tmp_path / "quarantine", 60)
    report = check(
        server, spool, {"r2": gone, "b2": store}, cluster_prefix=PREFIX, wanted=WantedArchiving(spool.folder)
    )
    failed = {item.name for item in report.items if not item.ok}
    assert failed == {
        "server",
        "spool",
        "spool: disk",
        "spool: lock",
        "spool: waiting files",
        "spool: other names",
        *(f"r2: {name}" for name in ("bucket and credentials", "write", "read back", "clock", "delete")),
    }
    assert not report.ok
    assert [item.name for item in report.items if item.ok and item.name.startswith("b2: ")] == [
        f"b2: {name}" for name in ("bucket and credentials", "write", "read back", "clock", "delete")
    ]


@pytest.mark.integration
def test_the_server_and_the_spool(
    shared_cluster18: PostgresCluster, postgres_folder: Path, store: LocalFolderStore
) -> None:
    """A server that does not archive fails the items that say so; a file that waits for too long fails too."""
    server = PostgresServer(shared_cluster18.conninfo)
    spool = Spool(postgres_folder, postgres_folder / "quarantine", 60)
    (postgres_folder / "00000002.history").write_text("1\t0/3000000\tno recovery target specified\n")
    wanted = WantedArchiving(postgres_folder)
    report = check(
        server, spool, {"b2": store}, cluster_prefix=PREFIX, wanted=wanted, now=lambda: utc_now() + timedelta(hours=2)
    )
    items = {item.name: replace(item, seconds=0) for item in report.items}
    assert {name for name, item in items.items() if not item.ok} == {
        "archive_mode",
        "archiver",
        "archive_timeout",
        "archiver process",
        "spool: waiting files",
        "b2: clock",
    }
    assert items["archive_mode"].hint == (
        "Type 'wal-pipeline setup --apply', or: ALTER SYSTEM SET archive_mode = 'on';"
    )
    assert items["archiver process"] == CheckItem(
        "archiver process",
        ok=False,
        message="archiving is off",
        hint="'wal-pipeline setup' shows what is wrong with the settings.",
    )
    assert items["server"].message == (
        f"connected as 'postgres', system identifier {shared_cluster18.system_identifier}"
    )
    assert items["spool: waiting files"].message.startswith("1 files wait, the oldest '00000002.history' for 7")
