"""SQLite's file is removed or replaced under a process that has it open."""

from pathlib import Path

from wal_pipeline.catalog.catalog import open_catalog


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def test_what_is_recorded_after_the_file_was_removed_is_in_the_new_one(tmp_path: Path) -> None:
    """A run that continues records in the file that the next process opens, not in one without a name."""
    path = tmp_path / "catalog.sqlite"
    catalog = open_catalog(f"sqlite:///{path}", "main")
    catalog.values.put("before", {"n": 1})
    remove(path)
    catalog.values.put("after", {"n": 2})
    other = open_catalog(f"sqlite:///{path}", "main")
    assert (other.values.get("before"), other.values.get("after")) == (None, {"n": 2})
    other.close()
    catalog.close()


def test_a_file_that_was_put_in_its_place_is_used(tmp_path: Path) -> None:
    """A rebuild renames files: what every process reads and writes then is the new one."""
    path = tmp_path / "catalog.sqlite"
    catalog = open_catalog(f"sqlite:///{path}", "main")
    catalog.values.put("which", {"n": 1})
    other = open_catalog(f"sqlite:///{tmp_path / 'other.sqlite'}", "main")
    other.values.put("which", {"n": 2})
    other.close()
    remove(path)
    (tmp_path / "other.sqlite").rename(path)
    assert catalog.values.get("which") == {"n": 2}
    catalog.close()
