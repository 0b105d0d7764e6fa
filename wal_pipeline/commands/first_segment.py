"""Learn which cluster a spool is of from the first whole segment in it, where no server could be asked."""

from collections.abc import Iterable

from wal_pipeline.commands.identity import ClusterIdentity
from wal_pipeline.errors import BeingWrittenError
from wal_pipeline.spool import Spool, SpoolFile
from wal_pipeline.wal.names import FileKind
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, InvalidSegmentError, check_segment


def adopt_first_segment(spool: Spool, files: Iterable[SpoolFile], identity: ClusterIdentity) -> bool:
    """Make the cluster of the first of these files that is a whole segment the current one; False where none is.

    Raises: SpoolError, CatalogError.
    """
    for spooled in files:
        if spooled.name.kind is not FileKind.SEGMENT:
            continue
        try:
            data = spool.read(spooled)
        except BeingWrittenError:
            continue
        if data is None:
            continue
        try:
            header = check_segment(spooled.name, data[:LONG_HEADER_BYTES], len(data), None)
        except InvalidSegmentError:
            continue
        identity.adopt(header.system_identifier, f"segment {spooled.name.name}")
        return True
    return False
