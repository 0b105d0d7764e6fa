"""Runs the prefetch client from its old path, which running recoveries still have in their restore_command."""

import os
import runpy

runpy.run_path(
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "archive_get", "prefetch_client.py"),  # noqa: PTH100, PTH118, PTH120 - pathlib takes as long to import as all the rest
    run_name=__name__,
)
