"""Runs one command of ``wal-pipeline`` in a process of its own, on a host whose clock is ahead."""

import sys
from pathlib import Path

from chaos.archive_process import SteppedContext
from wal_pipeline.cli.registry import load_command
from wal_pipeline.errors import WalPipelineError


def main() -> int:
    """Run the command and return its exit code."""
    offset_file, name, *words = sys.argv[1:]
    try:
        code = load_command(name).main(words, obj=SteppedContext(Path(offset_file)), standalone_mode=False)
    except WalPipelineError as error:
        print(f"ERROR: {error}", file=sys.stderr)  # noqa: T201 - as the command line does
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
