"""Tests that a table among an asset's metadata has a text for each of its titles, in order."""

import pytest

from wal_pipeline.orchestration.text_table import text_table


def test_each_text_stands_under_its_title() -> None:
    """Titles are columns of text."""
    table = text_table(("store", "bytes"), [("r2", "1.0 MiB"), ("b2", "-")])
    assert [record.data for record in table.records] == [
        {"store": "r2", "bytes": "1.0 MiB"},
        {"store": "b2", "bytes": "-"},
    ]
    assert [(column.name, column.type) for column in table.schema.columns] == [("store", "string"), ("bytes", "string")]


def test_a_row_that_lacks_a_text_is_refused() -> None:
    """It would else stand under other titles."""
    with pytest.raises(ValueError, match="shorter"):
        text_table(("store", "bytes"), [("r2",)])
