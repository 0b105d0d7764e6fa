"""A worker process ends with the base backup that it works for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from testbed.processes import is_alive

_PARENT = """
import sys, time
from pathlib import Path
from wal_pipeline_tests.support.worker_backup import WorkerBackup

if __name__ == "__main__":
    with WorkerBackup(Path(sys.argv[1])).workers(2) as workers:
        print(*[one._spawned.process.pid for one in workers._processes], flush=True)
        time.sleep(600)
"""


def test_workers_do_not_outlive_a_killed_base_backup(tmp_path: Path) -> None:
    """SIGKILL of the base backup ends its workers: nobody reads the data directory on."""
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[5])}
    words = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
