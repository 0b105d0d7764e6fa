"""What root makes in the service's folders is the service's, and who may not open a file is told whose it is."""

import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wal_pipeline.catalog.catalog import open_catalog
from wal_pipeline.commands.audit import AuditLog
from wal_pipeline.errors import cause_hint
from wal_pipeline.host.file_owner import name_of_user, owner_trouble
from wal_pipeline_tests.support.nobody import NOBODY, as_nobody, nobodys_folder


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder of another user."""
    with nobodys_folder("state") as folder:
        yield folder


def use_catalog(folder: Path) -> Callable[[], None]:
    def use() -> None:
        catalog = open_catalog(f"sqlite:///{folder}/catalog.sqlite", "main")
        catalog.values.put("x", 1)
        catalog.close()

    return use


def test_a_catalog_that_root_made_first(state: Path) -> None:
    """All its files are the service's, also while root has it open."""
    catalog = open_catalog(f"sqlite:///{state}/catalog.sqlite", "main")
    catalog.values.put("x", 1)
    assert as_nobody(use_catalog(state)) == ""
    assert {path.stat().st_uid for path in state.iterdir()} == {NOBODY}
    catalog.close()


def test_an_audit_log_that_root_made_first(state: Path) -> None:
    """The service's lines follow root's."""

    def write() -> None:
        AuditLog(state, lambda: datetime.now(UTC)).write("test", "x", "done")

    write()
    assert as_nobody(write) == ""
    assert len((state / "audit.jsonl").read_text().splitlines()) == 2


def test_a_catalog_that_may_not_be_written_is_named(state: Path) -> None:
    """The error's hint says which file it is, whose, and the line that mends it; root's next command mends it too."""
    use_catalog(state)()
    file = state / "catalog.sqlite"
    os.chown(file, 0, 0)
    told = as_nobody(use_catalog(state))
    assert "attempt to write a readonly database" in told
    assert told.endswith(
        f"HINT: '{file}' belongs to user 'root', and user 'nobody' may not open it; type: sudo chown nobody: {file}."
    )
    use_catalog(state)()
    assert as_nobody(use_catalog(state)) == ""


def test_ones_own_file_without_rights(tmp_path: Path) -> None:
    """The line gives the rights back; files that are gone or all right are no trouble."""
    if os.geteuid() == 0:
        pytest.skip("root may do everything")
    path = tmp_path / "a file"
    assert owner_trouble([path, tmp_path], os.W_OK) is None
    path.touch(mode=0o400)
    ours = name_of_user(os.geteuid())
    assert owner_trouble([path], os.W_OK) == (
        f"'{path}' may not be opened by its owner '{ours}'; type: sudo chmod u+rw '{path}'"
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "mounted read-only"),
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "fails"),
        (errno.ESTALE, "mount it again"),
    ],
)
def test_what_no_right_causes_is_not_told_as_a_missing_right(number: int, words: str) -> None:
    """'chown' frees no disk."""
    hint = cause_hint(OSError(number, os.strerror(number)))
    assert hint is not None
    assert words in hint


def test_a_missing_right_is_left_to_whoever_knows_the_folder() -> None:
    """The owner and the group are told there."""
    assert cause_hint(PermissionError(errno.EACCES, "Permission denied")) is None
