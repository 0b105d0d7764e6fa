"""Tests that children end with their parent, and that a port is given out once."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from testbed import ports
from testbed.ports import GRPC_OFFSET, _lock, free_ports
from testbed.processes import ChildProcess, ServerError, lock_holder

_REPOSITORY = Path(__file__).parents[2]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the process that started a child ends the child."""
    program = f"""
        from pathlib import Path
        from testbed.processes import ChildProcess
        import time
        child = ChildProcess("sleep", ["sleep", "300"], log=Path({str(tmp_path / "log")!r}))
        child.start()
        print(child.pid, flush=True)
        time.sleep(300)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_REPOSITORY) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        while Path(f"/proc/{pid}/comm").read_text().strip() != "sleep":
            time.sleep(0.01)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


def test_kill_ends_grandchildren_in_other_sessions(tmp_path: Path) -> None:
    """A grandchild that left the process group ends too."""
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; sleep 300' & wait"
    child = ChildProcess("shell", ["sh", "-c", script], log=tmp_path / "log")
    child.start()
    child.wait_until(pid_file.exists)
    child.kill()
    assert not is_alive(int(pid_file.read_text()))


def test_early_end_shows_the_log(tmp_path: Path) -> None:
    """A program that ends before it is ready is an error with the end of its log."""
    child = ChildProcess("shell", ["sh", "-c", "echo no such file; exit 3"], log=tmp_path / "log")
    child.start()
    with pytest.raises(ServerError) as caught:
        child.wait_until(lambda: False)
    assert str(caught.value) == "'shell' ended with 3 while starting:\nno such file"


@pytest.mark.parametrize("offset", [0, GRPC_OFFSET], ids=["port", "gRPC neighbour"])
def test_no_port_is_given_out_twice(offset: int) -> None:
    """Neither this process nor another one is given a port that was given out, nor its gRPC neighbour."""
    port = free_ports(1)[0] + offset
    program = f"from testbed import ports; print(ports._lock({port}))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=_REPOSITORY)
    assert (_lock(port), other.stdout.strip()) == (False, "False")


def test_a_port_whose_neighbour_is_kept_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port is passed over while another server keeps the port of its gRPC service, and stays free for others."""
    neighbour = free_ports(1)[0] + GRPC_OFFSET
    port = neighbour - GRPC_OFFSET
    os.close(ports._held_locks.pop(port))
    monkeypatch.setattr(ports, "_LOWEST", port)
    monkeypatch.setattr(ports, "_HIGHEST", port + 1)
    with pytest.raises(RuntimeError, match="found 0 free ports"):
        free_ports(1)
    os.close(ports._held_locks.pop(neighbour))
    assert free_ports(1) == (port,)


def test_the_holder_of_a_lock_is_found(tmp_path: Path) -> None:
    """The process with the flock is named while it holds it, and nobody before and after."""
    path = tmp_path / "lock"
    assert lock_holder(path) is None
    with path.open("w") as file:
        assert lock_holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock_holder(path) == os.getpid()
    assert lock_holder(path) is None
