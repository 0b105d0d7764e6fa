"""Makes stretches of WAL as the decoder counts them, for tests that need no server."""

from collections.abc import Sequence

import numpy as np

from wal_pipeline.wal.records.changes import RecordChanges
from wal_pipeline.wal.records.endings import MadeFiles, RelationKey, RunningTransactions, TransactionEnd


def stretch(
    first_lsn: int,
    rows: Sequence[tuple[int, RelationKey, int]] = (),
    *,
    commits: Sequence[tuple[int, int]] = (),
    aborts: Sequence[int] = (),
    ends: Sequence[TransactionEnd] = (),
    running: Sequence[RunningTransactions] = (),
    made: Sequence[MadeFiles] = (),
) -> RecordChanges:
    """Return a stretch in which each of ``rows`` (xid, relation, inserted) has 100 bytes of WAL.

    ``commits`` are xids and LSNs; the time of each is its LSN.
    """
    ended = [xid for xid, _ in commits] + list(aborts) + [end.xid for end in ends]
    xids = sorted({xid for xid, _, _ in rows} | set(ended))
    relations = sorted({(0, 0)} | {key for _, key, _ in rows})
    cells = sorted(
        {(xids.index(xid), relations.index(key)) for xid, key, _ in rows} | {(xids.index(x), 0) for x in ended}
    )
    inserted = [sum(n for xid, key, n in rows if (xids.index(xid), relations.index(key)) == cell) for cell in cells]
    zeros = np.zeros(len(cells), np.int64)
    ints = [np.array([one[place] for one in cells], np.int64) for place in (0, 1)]
    return RecordChanges(
        first_lsn=first_lsn,
        xids=np.array(xids, np.int64),
        first_lsns=np.full(len(xids), first_lsn, np.int64),
        relations=tuple(relations),
        xid_of_cell=ints[0],
        relation_of_cell=ints[1],
        inserted=np.array(inserted, np.int64),
        updated=zeros,
        deleted=zeros,
        wal_bytes=np.full(len(cells), 100, np.int64),
        commit_xids=np.array([xid for xid, _ in commits], np.int64),
        commit_lsns=np.array([lsn for _, lsn in commits], np.int64),
        commit_us=np.array([lsn for _, lsn in commits], np.int64),
        abort_xids=np.array(list(aborts), np.int64),
        ends=tuple(ends),
        running=tuple(running),
        made=tuple(made),
        dropped_databases=(),
        records=len(cells),
    )
