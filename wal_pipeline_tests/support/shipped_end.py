"""Ships the open segment of a history's cluster in pieces, as it is now."""

from dataclasses import replace
from datetime import datetime

from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.postgres.waldump import PgWaldump
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn
from wal_pipeline.wal.names import segment_at
from wal_pipeline_tests.support.pieces import cut, even_places, put_pieces
from wal_pipeline_tests.support.restore_history import History

SIZE = 1 << 20


def ship(history: History, size: int = SIZE, encoder: Encoder | None = None) -> Lsn:
    """Ship the open segment up to the flushed LSN to both stores, r2 in more pieces than b2; return its end."""
    flushed, timeline, at = history.cluster.psql(
        "SELECT pg_current_wal_flush_lsn(), timeline_id, clock_timestamp() FROM pg_control_checkpoint()"
    ).split("|")
    end = Lsn.parse(flushed)
    name = segment_at(int(timeline), end, size)
    offset, identifier, major = end % size, int(history.cluster.system_identifier), history.install.version
    data = (history.cluster.pgdata / "pg_wal" / name.name).read_bytes()[:offset].ljust(size, b"\0")
    padded = history.folder / name.name
    padded.write_bytes(data)
    commits = PgWaldump(bindir=history.install.bin_folder).read(padded, major, size)
    for store, count in (("r2", 9), ("b2", 4)):
        pieces = cut(
            name.name,
            data,
            even_places(offset, count),
            system_identifier=identifier,
            wal_segment_size=size,
            server_major=major,
        )
        pieces = [replace(piece, flushed_at=datetime.fromisoformat(at)) for piece in pieces]
        pieces[-1] = replace(
            pieces[-1],
            first_commit_at=commits.first.at if commits.first else None,
            last_commit_at=commits.last.at if commits.last else None,
        )
        pipeline = history.pipeline
        put_pieces(ClusterStore(pipeline.stores[store], pipeline.layout(identifier)), pieces, data, encoder)
    return end
