"""Stores small parts of the index while a base backup runs, so that a later one can go on with it."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from wal_pipeline.archive.format.base_backup.unfinished import index_part_lines, index_part_name
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.commands.backup.local.packed import PackedVolumes
from wal_pipeline.commands.backup.objects import object_metadata
from wal_pipeline.errors import StoreError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.lsn import Lsn

_log = logging.getLogger(__name__)
CONTENT_SIZE_NAME: Final = "content-size-bytes"
_VOLUMES_A_PART: Final = 4
_PARTS: Final = 20  # each tells of a twentieth of what is stored by then: a small base backup has few
_LONGEST_SECONDS: Final = 60.0  # a twentieth of a large one is hours of work; a cut may cost a minute


class IndexParts:
    """Stores the parts of the index while a base backup runs, and removes them before its manifest is stored."""

    def __init__(
        self,
        backup_id: str,
        start_lsn: Lsn,
        places: Sequence[ClusterStore],
        encoder: StreamEncoder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` gives seconds from any beginning."""
        self._backup_id = backup_id
        self._start_lsn = start_lsn
        self._places = list(places)
        self._encoder = encoder
        self._clock = clock
        self._told_at = clock()
        self._count = 0

    def store_news(self, packed: PackedVolumes, *, is_last: bool = False) -> None:
        """Store a part where enough volumes were added since the last one, or some and that is long ago.

        ``is_last``: all volumes but the very last are there, and what follows may take long. A store that does not take
        the part is no reason to stop.
        """
        is_due = (is_last and self.is_begun) or self._clock() - self._told_at >= _LONGEST_SECONDS
        news = packed.take_news(1 if is_due else max(_VOLUMES_A_PART, packed.begun // _PARTS))
        if news is None:
            return
        content = b"".join(index_part_lines(self._start_lsn, news.volumes, news.files.values(), news.begun.values()))
        stored = bytearray()
        self._encoder.encode_here([content], stored.extend)
        metadata = {**object_metadata(self._backup_id), CONTENT_SIZE_NAME: str(len(content))}
        body, key_name = Body.of(bytes(stored)), self._name(self._count)
        self._count += 1
        self._told_at = self._clock()
        for place in self._places:
            try:
                place.store.put_if_absent(place.layout.base_key(self._backup_id, key_name), body, metadata)
            except StoreError as error:
                _log.warning("a base backup that is cut cannot go on with all of this one: %s", error.message)

    def remove(self) -> None:
        """Remove all parts; those that stay do no harm."""
        for place in self._places:
            try:
                for number in range(self._count):
                    place.store.delete(place.layout.base_key(self._backup_id, self._name(number)))
            except StoreError as error:
                _log.warning("parts of the index of base backup '%s' stay: %s", self._backup_id, error.message)

    @property
    def is_begun(self) -> bool:
        """Whether a later base backup could go on with this one."""
        return self._count > 0

    def _name(self, number: int) -> str:
        return index_part_name(number, self._encoder.codec, encrypted=self._encoder.encrypted)
