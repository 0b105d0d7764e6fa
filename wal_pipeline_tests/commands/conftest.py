"""Fixtures of the commands' tests."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal_pipeline.catalog.catalog import Catalog, open_catalog
from wal_pipeline_tests.support.archive_scene import ArchiveScene

_MEMORY = Path("/dev/shm")  # noqa: S108 - where it is there, waiting for a disk would be most of these tests' time


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, or else on disk."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="wal-pipeline-test-", dir=_MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def scene(quick_folder: Path) -> Iterator[ArchiveScene]:
    """An archiver over an empty spool and two local folder stores, ``r2`` and ``b2``."""
    made = ArchiveScene(quick_folder)
    yield made
    made.catalog.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A catalog in a SQLite file."""
    made = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", "main")
    yield made
    made.close()
