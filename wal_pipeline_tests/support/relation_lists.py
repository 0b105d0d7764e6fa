"""Makes lists of relations for tests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from wal_pipeline.archive.format.relations import ListedDatabase, ListedRelation, RelationKind, RelationList
from wal_pipeline.wal.lsn import Lsn

FIRST_AT: Final = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)
SHOP: Final = ListedDatabase(16384, "shop", is_template=False, allows_connections=True, tablespace_oid=1663)
SYSTEM_IDENTIFIER: Final = 7123456789012345678


def relation(
    name: str,
    oid: int,
    file_node: int | None = None,
    *,
    schema: str = "public",
    kind: RelationKind = RelationKind.TABLE,
    table_oid: int | None = None,
    database_oid: int = SHOP.oid,
) -> ListedRelation:
    """Return a relation; its file node is its OID unless another one is given, as after TRUNCATE."""
    node = oid if file_node is None else file_node
    return ListedRelation(database_oid, oid, node, 0, schema, name, kind, table_oid)


def relation_list(
    relations: Sequence[ListedRelation], *, day: int = 0, databases: Sequence[ListedDatabase] = (SHOP,)
) -> RelationList:
    """Return the list of a day."""
    return RelationList(
        taken_at=FIRST_AT + timedelta(days=day),
        lsn=Lsn(0x3000028 + day),
        timeline=1,
        server_major=18,
        system_identifier=SYSTEM_IDENTIFIER,
        databases=tuple(databases),
        relations=tuple(relations),
    )
