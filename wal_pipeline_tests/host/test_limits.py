"""How many cores and how much memory there are follows the tightest limit around this process."""

import os
from pathlib import Path

import pytest

from wal_pipeline.host.limits import Memory, look_at_memory, usable_cores

MIB = 2**20
V2 = "sys/fs/cgroup/kubepods/pod/cpu.max"
V1 = "sys/fs/cgroup/cpu/docker/abc"
MEMINFO = "MemTotal:       16384000 kB\nMemFree:  1000 kB\nMemAvailable:    8192000 kB\nHugePages_Total:   0\n"
HOST = Memory(16384000 * 1024, 8192000 * 1024)


def made(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_host_without_groups(tmp_path: Path) -> None:
    """The host's own memory."""
    assert look_at_memory(made(tmp_path, {})) == HOST


def test_the_limit_of_a_group_around_ours_counts(tmp_path: Path) -> None:
    """Its file cache can be given back, and does not count as used."""
    root = made(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/wal-pipeline-code.service\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{1536 * MIB}\n",
            "sys/fs/cgroup/system.slice/memory.current": f"{1000 * MIB}\n",
            "sys/fs/cgroup/system.slice/memory.stat": f"anon 5\ninactive_file {600 * MIB}\n",
            "sys/fs/cgroup/system.slice/wal-pipeline-code.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/wal-pipeline-code.service/memory.current": "1\n",
        },
    )
    assert look_at_memory(root) == Memory(1536 * MIB, 1136 * MIB)


def test_a_container_that_sees_its_group_at_the_top(tmp_path: Path) -> None:
    """The path is the host's, and not there inside."""
    root = made(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/0123\n",
            "sys/fs/cgroup/memory.max": f"{512 * MIB}\n",
            "sys/fs/cgroup/memory.current": f"{100 * MIB}\n",
        },
    )
    assert look_at_memory(root) == Memory(512 * MIB, 412 * MIB)


@pytest.mark.parametrize(("limit", "expected"), [(512 * MIB, Memory(512 * MIB, 412 * MIB)), (2**63 - 4096, HOST)])
def test_control_groups_of_version_1(tmp_path: Path, limit: int, expected: Memory) -> None:
    """There 'no limit' is a large number."""
    root = made(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,memory:/one\n4:pids:/one\n",
            "sys/fs/cgroup/memory/one/memory.limit_in_bytes": f"{limit}\n",
            "sys/fs/cgroup/memory/one/memory.usage_in_bytes": f"{200 * MIB}\n",
            "sys/fs/cgroup/memory/one/memory.stat": f"total_inactive_file {100 * MIB}\n",
        },
    )
    assert look_at_memory(root) == expected


def test_where_nothing_tells(tmp_path: Path) -> None:
    """Another system: nothing is claimed."""
    assert look_at_memory(tmp_path) is None


def test_this_machine_has_memory() -> None:
    """The real files can be read."""
    found = look_at_memory()
    assert found is not None
    assert 0 < found.available_bytes <= found.limit_bytes


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({V2: "max 100000"}, 16),
        ({V2: "200000 100000"}, 2),
        ({V2: "50000 100000"}, 1),
        ({V2: "250000 100000"}, 3),
        ({V2: "max 100000", "sys/fs/cgroup/kubepods/cpu.max": "400000 100000"}, 4),
        ({V2: "6400000 100000"}, 16),
        ({V2: ""}, 16),
    ],
)
@pytest.mark.usefixtures("many_cores")
def test_a_quota_of_version_2(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    """The tightest of a container's own group and those around it, rounded up."""
    assert usable_cores(made(tmp_path, {"proc/self/cgroup": "0::/kubepods/pod\n", **files})) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("300000", 3), ("", 16)])
@pytest.mark.usefixtures("many_cores")
def test_a_quota_of_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    """A quota of -1 is none."""
    files = {
        "proc/self/cgroup": "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n",
        f"{V1}/cpu.cfs_quota_us": quota,
        f"{V1}/cpu.cfs_period_us": "100000",
    }
    assert usable_cores(made(tmp_path, files)) == expected


def test_the_affinity_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on one core of a large host has one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7})
    assert usable_cores(tmp_path) == 1
