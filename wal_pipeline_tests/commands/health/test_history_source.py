"""A timeline history file is read from whichever store answers, and nobody waits for one that does not."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal_pipeline.commands.archive_get.wal_source import WalSource, WalUnreachableError
from wal_pipeline.commands.health.history_source import HistoryFetch
from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.wal.names import WalFileName, require_file_name
from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, history_bytes
from wal_pipeline_tests.support.upkeep_scene import LAYOUT, UpkeepScene

HISTORY = require_file_name("00000002.history")


@pytest.fixture
def scene(tmp_path: Path) -> UpkeepScene:
    made = UpkeepScene(tmp_path)
    made.store_file(HISTORY.name, history_bytes([1]), made.now)
    return made


@pytest.fixture
def swallow(scene: UpkeepScene) -> Iterator[None]:
    """Let r2 take every call and answer none, until the test is over."""
    over = threading.Event()
    scene.stores["r2"].before = lambda _call, _key: over.wait(60) and None
    yield
    over.set()


def fetch(scene: UpkeepScene, *names: str, seconds: float = 0.3) -> HistoryFetch:
    return HistoryFetch(lambda _: {name: WalSource(LAYOUT, (scene.stores[name],)) for name in names}, seconds)


def refused(fetch: HistoryFetch, name: WalFileName = HISTORY) -> str:
    with pytest.raises(WalUnreachableError) as found:
        fetch(SYSTEM_IDENTIFIER, name)
    return found.value.message


@pytest.mark.usefixtures("swallow")
def test_the_store_that_answers_is_enough(scene: UpkeepScene) -> None:
    """One that never answers does not hold up the one that has the file."""
    begun = time.monotonic()
    assert fetch(scene, "r2", "b2", seconds=30)(SYSTEM_IDENTIFIER, HISTORY) == history_bytes([1])
    assert time.monotonic() - begun < 10


@pytest.mark.usefixtures("swallow")
def test_no_answer_ends_in_time_and_is_not_waited_for_again(scene: UpkeepScene) -> None:
    """Several files cost no more than one."""
    ask = fetch(scene, "r2", seconds=0.3)
    message = "'00000002.history' could not be had from any store:\nr2: no answer within 0.3 s"
    assert refused(ask) == message
    calls = len(scene.stores["r2"].calls)
    assert refused(ask) == message
    assert len(scene.stores["r2"].calls) == calls


def test_absence_needs_every_answer(scene: UpkeepScene) -> None:
    """None where both say that they have no such file; an error where one failed."""
    other = require_file_name("00000003.history")
    assert fetch(scene, "r2", "b2", seconds=30)(SYSTEM_IDENTIFIER, other) is None

    def down(_call: str, _key: str) -> None:
        raise StoreUnavailableError("r2", "connection refused")

    scene.stores["r2"].before = down
    assert refused(fetch(scene, "r2", "b2", seconds=30), other).endswith("store:\nr2: connection refused")
