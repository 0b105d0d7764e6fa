"""Tests that each kind of alert has a remedy, and that each command in it exists."""

import re

import pytest

from wal_pipeline.archive.alerts import AlertKind
from wal_pipeline.cli.registry import COMMANDS
from wal_pipeline.commands.alerts.remedies import remedy


@pytest.mark.parametrize("kind", AlertKind)
def test_each_kind_names_commands_that_exist(kind: AlertKind) -> None:
    """A person who was woken up types what stands there."""
    said = remedy(kind)
    assert said
    for name in re.findall(r"wal-pipeline ([a-z]+)", said):
        assert name in COMMANDS
