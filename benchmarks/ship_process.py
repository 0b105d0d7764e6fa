"""Ships as ``wal-pipeline ship`` does, and prints each event and the number of requests with its moment.

One JSON object a line: ``at`` (seconds since 1970) with ``store``, ``segment`` and ``end_lsn`` of a verified piece, or
with ``requests``, those to all ``stores`` that are counted so far.
"""

import json
import signal
import sys
import threading
import time
from typing import Final

from wal_pipeline.commands.ship.events import PieceShipped
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline.wiring.ship import ship_now

_COUNT_SECONDS: Final = 0.5


def main() -> int:
    """Ship until SIGTERM."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    pipeline = Pipeline(load_settings())
    threading.Thread(target=_count, args=(pipeline, ending), daemon=True).start()
    for event in ship_now(pipeline, max_seconds=None, stop=ending.is_set):
        if isinstance(event, PieceShipped):
            piece = event.piece
            _say(store=event.store, segment=piece.segment.name, end_lsn=int(piece.end_lsn))
        else:
            print(event, file=sys.stderr, flush=True)
    return 0


def _count(pipeline: Pipeline, ending: threading.Event) -> None:
    """Say how many requests there were, again and again."""
    while not ending.wait(_COUNT_SECONDS):
        found = (getattr(store, "meter", None) for store in pipeline.stores.values())
        meters = [meter for meter in found if isinstance(meter, RequestMeter)]
        _say(requests=sum(sum(meter.totals().requests.values()) for meter in meters), stores=len(meters))


def _say(**values: object) -> None:
    print(json.dumps({"at": time.time(), **values}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
