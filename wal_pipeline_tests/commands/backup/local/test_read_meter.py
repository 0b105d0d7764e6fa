"""Workers read no faster together than they may, and end at once when they are stopped."""

import threading
import time

import pytest

from wal_pipeline.commands.backup.local.read_meter import ReadMeter
from wal_pipeline.errors import BaseBackupError


def test_what_several_threads_read_is_counted_and_slowed_together() -> None:
    """Four threads with half a MiB each at 8 MiB a second take the time of two MiB at least."""
    meter, begun = ReadMeter(max_rate_kib=8 << 10), time.monotonic()
    threads = [threading.Thread(target=lambda: [meter.note(64 << 10) for _ in range(8)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.read_bytes == 2 << 20
    assert time.monotonic() - begun >= 0.25


def test_a_stop_ends_a_wait_for_the_rate() -> None:
    """A reader that would wait for an hour is stopped, with an error."""
    meter, errors = ReadMeter(max_rate_kib=1), []

    def read() -> None:
        try:
            meter.note(4 << 20)
        except BaseBackupError as error:
            errors.append(error.message)

    reader = threading.Thread(target=read)
    reader.start()
    meter.stop()
    reader.join(timeout=60)
    assert errors == ["the base backup was stopped"]
    with pytest.raises(BaseBackupError):
        meter.note(1)
