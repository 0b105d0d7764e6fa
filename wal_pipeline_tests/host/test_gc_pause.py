"""Python's cycle collector in a command."""

import subprocess
import sys


def test_a_command_is_not_looked_through_at_its_end() -> None:
    """Everything is put aside before the interpreter ends, and the collector ran seldom."""
    script = """
import atexit, gc
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 1000))
from wal_pipeline.host.gc_pause import collect_seldom
collect_seldom()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["50000", "True"]
