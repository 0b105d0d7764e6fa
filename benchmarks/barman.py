"""Runs barman-cloud-wal-archive from a virtual environment of its own: one program start for each segment."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.ours import BenchError
from testbed.seaweed import SeaweedServer

_PACKAGES: Final = ("barman[cloud]", "zstandard", "lz4")
_INSTALL_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Barman:
    """The program, where it is installed."""

    program: Path

    def version(self) -> str:
        """Return the version that the program prints."""
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def push_all(self, server: SeaweedServer, bucket: str, segments: Sequence[Path], codec: str, level: int) -> None:
        """Archive segments one after the other, as PostgreSQL's archiver would. Raises: BenchError."""
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CA_BUNDLE": str(server.ca_bundle),
        }
        options = ["--endpoint-url", server.endpoint_url, "--addressing-style", "path"]
        options += [f"--{codec}"] if codec == "lz4" else [f"--{codec}", f"--compression-level={level}"]
        for segment in segments:
            command = [str(self.program), *options, f"s3://{bucket}/barman", "bench", str(segment)]
            finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if finished.returncode != 0:
                raise BenchError(f"barman-cloud-wal-archive ended with {finished.returncode}: {finished.stderr[-800:]}")


def install(home: Path) -> Barman | str:
    """Return the program, which is installed where it is missing, or the reason why that fails."""
    venv = home / "barman"
    program = venv / "bin" / "barman-cloud-wal-archive"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, capture_output=True)
        command = [str(venv / "bin" / "pip"), "install", "--quiet", *_PACKAGES]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
        if finished.returncode != 0:
            return f"barman[cloud] cannot be installed: {finished.stderr.strip()[-300:]}"
    return Barman(program)
