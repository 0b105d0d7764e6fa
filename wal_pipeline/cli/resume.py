"""``wal-pipeline resume``: see ``pause``."""

from wal_pipeline.cli.pause import resume_command

__all__ = ["resume_command"]
