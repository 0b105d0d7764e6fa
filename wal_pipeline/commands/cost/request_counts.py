"""Adds this process's requests to the stores to the catalog's counts, from which the cost is worked out."""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.catalog.store_states import RequestCounts
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.request_meter import RequestMeter, RequestTotals

# R2's and B2's price classes by S3 operation. Deleting and aborting are free on both.
CLASS_A: Final = frozenset(
    {
        "put_object",
        "copy_object",
        "list_objects",
        "list_objects_v2",
        "list_object_versions",
        "list_multipart_uploads",
        "list_parts",
        "list_buckets",
        "create_multipart_upload",
        "upload_part",
        "upload_part_copy",
        "complete_multipart_upload",
        "put_bucket_lifecycle_configuration",
    }
)
FREE: Final = frozenset({"delete_object", "delete_objects", "abort_multipart_upload", "delete_bucket"})


class RequestLedger:
    """Remembers which of the stores' requests the catalog has counted already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recorded: dict[int, RequestCounts] = {}

    def record(self, opened: Sequence[Store], catalog: Catalog, now: datetime) -> None:
        """Add the requests to the opened stores since the last call; ``opened`` may only grow.

        A store without a meter (a local folder) costs nothing per request.

        Raises: CatalogError; the next call then adds everything.
        """
        with self._lock:
            for index, store in enumerate(opened):
                meter = getattr(store, "meter", None)
                if not isinstance(meter, RequestMeter):
                    continue
                counted = counts_of(store.name, meter.totals(), now)
                new = _difference(counted, self._recorded.get(index))
                if new.class_a or new.class_b or new.uploaded_bytes or new.downloaded_bytes:
                    catalog.stores.count_requests(new)
                    self._recorded[index] = counted


def counts_of(store: str, totals: RequestTotals, now: datetime) -> RequestCounts:
    """Return a store's totals by price class."""
    return RequestCounts(
        store=store,
        day_at=now,
        class_a=_sum(totals.requests, is_class_a=True),
        class_b=_sum(totals.requests, is_class_a=False),
        uploaded_bytes=totals.sent_bytes,
        downloaded_bytes=totals.received_bytes,
    )


def _sum(requests: Mapping[str, int], *, is_class_a: bool) -> int:
    return sum(count for name, count in requests.items() if name not in FREE and (name in CLASS_A) is is_class_a)


def _difference(counted: RequestCounts, before: RequestCounts | None) -> RequestCounts:
    if before is None:
        return counted
    return RequestCounts(
        counted.store,
        counted.day_at,
        counted.class_a - before.class_a,
        counted.class_b - before.class_b,
        counted.uploaded_bytes - before.uploaded_bytes,
        counted.downloaded_bytes - before.downloaded_bytes,
    )
