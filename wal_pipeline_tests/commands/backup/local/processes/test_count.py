"""The number of processes that read a data directory."""

from pathlib import Path

import pytest

from wal_pipeline.commands.backup.local.processes import count as module
from wal_pipeline.commands.backup.local.processes.count import choose_processes, size_up_to
from wal_pipeline.host.limits import Memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("total_mib", "free_mib", "expected"),
    [(255, 16384, 0), (300, 16384, 1), (16384, 16384, 8), (16384, 1000, 3), (16384, 200, 0), (16384, None, 8)],
)
def test_processes_are_chosen_by_size_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total_mib: int, free_mib: int | None, expected: int
) -> None:
    """A process pays from 256 MiB on, and half of the memory is left alone. A person's number counts whatever it is."""
    memory = None if free_mib is None else Memory(free_mib * MIB, free_mib * MIB)
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    monkeypatch.setattr(module, "look_at_memory", lambda: memory)
    (tmp_path / "base/5").mkdir(parents=True)
    with (tmp_path / "base/5/16384").open("wb") as file:
        file.truncate(total_mib * MIB)
    assert choose_processes(None, tmp_path) == expected
    assert choose_processes(3, tmp_path) == 3


def test_the_size_counts_tablespaces_and_stops_where_it_is_enough(tmp_path: Path) -> None:
    """What is gone or cannot be read counts nothing, and stops nobody."""
    assert size_up_to(tmp_path, 1) == 0
    for folder in ("pgdata/base/5", "space/PG_18/5", "pgdata/pg_tblspc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pgdata/pg_tblspc/16400").symlink_to(tmp_path / "space")
    (tmp_path / "pgdata/pg_tblspc/16401").symlink_to(tmp_path / "gone")
    for number in range(5):
        (tmp_path / f"pgdata/base/5/{number}").write_bytes(bytes(100))
        (tmp_path / f"space/PG_18/5/{number}").write_bytes(bytes(10))
    assert size_up_to(tmp_path / "pgdata", 1 << 20) == 550
    assert size_up_to(tmp_path / "pgdata", 250) == 300
