"""Every folder of the settings can be written from within the systemd units."""

from pathlib import Path

import pytest

from wal_pipeline.commands.setup.systemd import UsedPath, drop_in, hidden_paths


def test_each_folder_is_named_once_and_may_be_missing() -> None:
    """The '-' lets the unit start where a folder is not there yet."""
    used = [UsedPath("A", Path("/srv/spool")), UsedPath("B", Path("/srv/spool")), UsedPath("C", Path("/srv/x y"))]
    lines = drop_in([*used, UsedPath("D", Path("/etc/identity.txt"), writes=False)]).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "[Service]",
        'ReadWritePaths="-/srv/spool"',
        'ReadWritePaths="-/srv/x y"',
    ]


def test_a_path_with_signs_of_systemds_own_is_escaped() -> None:
    """A percent sign would be a specifier."""
    assert 'ReadWritePaths="-/srv/100%%\\"\\\\"' in drop_in([UsedPath("A", Path('/srv/100%"\\'))])


@pytest.mark.parametrize("path", ["/home/anna/identity.txt", "/root/spool", "/run/user/0/x"])
def test_what_the_units_hide_is_told(path: str) -> None:
    """ReadWritePaths does not show what ProtectHome hides."""
    [line] = hidden_paths([UsedPath("WAL_PIPELINE_AGE_IDENTITY_FILE", Path(path), writes=False)])
    assert line.startswith(f"WAL_PIPELINE_AGE_IDENTITY_FILE: '{path}' is not seen by the units, which hide '/")
    assert list(hidden_paths([UsedPath("A", Path("/srv/home/x"))])) == []
