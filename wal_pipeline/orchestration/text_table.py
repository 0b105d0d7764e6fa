"""Makes the tables of text that Dagster shows among an asset's metadata."""

from collections.abc import Iterable, Sequence

import dagster as dg


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> dg.TableMetadataValue:
    """Return a table with these titles; each row has one text for each of them."""
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, type="string") for name in columns])
    return dg.MetadataValue.table(records, schema)
