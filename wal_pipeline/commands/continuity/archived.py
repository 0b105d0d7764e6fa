"""Knows what the archive holds beside a segment: its neighbour's joints, its timeline's history, the segment size."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.format.object_metadata import from_metadata
from wal_pipeline.archive.records import WalFile
from wal_pipeline.catalog.catalog import Catalog
from wal_pipeline.codec.decoder import open_stored
from wal_pipeline.commands.copies.find import find_copy
from wal_pipeline.commands.copies.read import read_source
from wal_pipeline.errors import CodecError, WalPipelineError
from wal_pipeline.stores.base import Store
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.wal.joint import Joint, SegmentJoints, read_joints
from wal_pipeline.wal.names import MAX_WAL_SEGMENT_SIZE, FileKind, WalFileName, history_name, require_file_name
from wal_pipeline.wal.page_header import LONG_HEADER_BYTES, check_segment
from wal_pipeline.wal.timeline import TimelineHistory

_MAX_TEXT_BYTES: Final = 1 << 20
_ASK_SECONDS: Final = 8.0
_MOST_JOINTS: Final = 4096  # of a run: only neighbours are asked for
_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ClusterKnowledge:
    """One system identifier's archive, as far as it is known. ``newest`` is the last segment of each timeline.

    ``breaks`` are the segments that were archived though they continue nothing, with the reason.
    """

    newest: dict[int, tuple[str, SegmentJoints]] = field(default_factory=dict)
    breaks: dict[str, str] = field(default_factory=dict)
    joints: dict[str, SegmentJoints | None] = field(default_factory=dict)
    histories: dict[int, TimelineHistory | None] = field(default_factory=dict)
    wal_segment_size: int | None = None
    is_size_asked: bool = False
    is_changed: bool = False


class ArchivedWal:
    """Knows the WAL that is archived: from the run, from the catalog, else from a store.

    A store is asked for the first segment of a run only, and for a history file once.
    """

    def __init__(self, stores: Mapping[str, Store], catalog: Catalog, layout: Callable[[int], Layout]) -> None:
        self._stores = dict(stores)
        self._catalog = catalog
        self._layout = layout
        self._clusters: dict[int, ClusterKnowledge] = {}
        self._asking = threading.Lock()  # several threads look up: the second one must not go on without the answer

    def cluster(self, system_identifier: int) -> ClusterKnowledge:
        """Return what is known of one system identifier. Raises: CatalogError."""
        if system_identifier not in self._clusters:
            known = knowledge_from_json(self._catalog.values.get(_key(system_identifier)) or {})
            kept: dict[str, str] = self._catalog.values.get(f"timeline_histories/{system_identifier}") or {}
            for name, content in kept.items():
                with _unknown(f"history file '{name}'"):
                    file = require_file_name(name)
                    known.histories[file.timeline] = TimelineHistory.parse(file.timeline, bytes.fromhex(content))
            newest = self._catalog.files.newest(system_identifier)
            known.wal_segment_size = None if newest is None else newest.wal_segment_size
            self._clusters[system_identifier] = known
        return self._clusters[system_identifier]

    def note_coming(self, file: WalFile) -> None:
        """Note a segment that is about to be archived: the next one is compared with it. Raises: CatalogError."""
        if file.joints is not None:
            _remember(self.cluster(file.system_identifier), file.name, file.joints)

    def forget(self, name: WalFileName) -> None:
        """Forget a file that was refused after all: the archive has another one of its name."""
        for system_identifier, known in self._clusters.items():
            known.joints.pop(name.name, None)
            if name.kind is FileKind.HISTORY:
                self.look_up_history(system_identifier, name.timeline)

    def note(self, file: WalFile) -> None:
        """Note a segment that is archived. Raises: CatalogError."""
        known = self.cluster(file.system_identifier)
        known.wal_segment_size = known.wal_segment_size or file.wal_segment_size
        if file.joints is None or file.kind is not FileKind.SEGMENT:
            return
        newest_name, newest = known.newest.get(file.timeline, (file.name, file.joints))
        _remember(known, newest_name, newest)
        _remember(known, file.name, file.joints)
        if known.breaks.pop(file.name, None) is not None:
            known.is_changed = True
        if file.name >= newest_name:
            known.newest[file.timeline] = (file.name, file.joints)
            known.is_changed = True

    def note_break(self, file: WalFile, reason: str) -> None:
        """Note a segment that is archived though it continues nothing. Raises: CatalogError."""
        known = self.cluster(file.system_identifier)
        known.breaks[file.name] = reason
        known.is_changed = True

    def joints(self, system_identifier: int, name: str) -> SegmentJoints | None:
        """Return the joints of an archived segment, where they are known already. Raises: CatalogError."""
        known = self.cluster(system_identifier)
        timeline = require_file_name(name).timeline
        newest_name, newest = known.newest.get(timeline, ("", None))
        return newest if newest_name == name else known.joints.get(name)

    def look_up(self, system_identifier: int, name: str, *, opened: bool = False) -> None:
        """Ask the stores for a segment's joints, once. What no store tells stays unknown.

        ``opened``: download the segment where its object's metadata does not tell, as that of earlier versions.
        """
        known = self.cluster(system_identifier)
        with self._asking:
            if self.joints(system_identifier, name) is None and name not in known.joints:
                known.joints[name] = self._first(lambda store: self._ask(store, system_identifier, name, opened))

    def look_up_history(self, system_identifier: int, timeline: int) -> None:
        """Ask the stores for a timeline's history file, once. What no store tells stays unknown.

        One that cannot be opened, since it is encrypted, is a history without switches.
        """
        known, name = self.cluster(system_identifier), history_name(timeline)
        with self._asking:
            if timeline not in known.histories and timeline > 1:
                known.histories[timeline] = self._first(lambda store: self._fetch(store, system_identifier, name))

    def keep_history(self, system_identifier: int, history: TimelineHistory, content: bytes) -> None:
        """Remember a history file that is archived now. Raises: CatalogError."""
        self.cluster(system_identifier).histories[history.timeline] = history
        key = f"timeline_histories/{system_identifier}"
        kept: dict[str, str] = self._catalog.values.get(key) or {}
        self._catalog.values.put(key, kept | {history_name(history.timeline).name: content.hex()})

    def save(self) -> None:
        """Write what is new into the catalog. Raises: CatalogError."""
        for system_identifier, known in self._clusters.items():
            if known.is_changed:
                self._catalog.values.put(_key(system_identifier), knowledge_to_json(known))
                known.is_changed = False

    def _ask(self, store: Store, system_identifier: int, name: str, opened: bool) -> SegmentJoints | None:
        place = ClusterStore(store, self._layout(system_identifier))
        with _unknown(f"what '{name}' ends with"):
            key = find_copy(place, require_file_name(name))
            found = None if key is None else store.head(key)
            if key is None or found is None:
                return None
            joints = from_metadata(key, found.metadata)[0].joints
            return self._read(place, require_file_name(name)) if joints is None and opened else joints
        return None

    def _read(self, place: ClusterStore, name: WalFileName) -> SegmentJoints | None:
        data = _open(place, name, MAX_WAL_SEGMENT_SIZE)
        if data is None:
            return None
        header = check_segment(name, data[:LONG_HEADER_BYTES], len(data), {place.layout.system_identifier})
        return read_joints(data, header, name.timeline)

    def _fetch(self, store: Store, system_identifier: int, name: WalFileName) -> TimelineHistory | None:
        with _unknown(f"history file '{name.name}'"):
            place = ClusterStore(store, self._layout(system_identifier))
            try:
                data = _open(place, name, _MAX_TEXT_BYTES)
            except CodecError:
                return TimelineHistory(name.timeline)  # it is encrypted: there is one, and where it parts is not known
            return None if data is None else TimelineHistory.parse(name.timeline, data)
        return None

    def look_up_segment_size(self, system_identifier: int) -> None:
        """Ask the stores for the archive's segment size, once: a catalog that was lost knows no file."""
        known, layout = self.cluster(system_identifier), self._layout(system_identifier)
        with self._asking:
            if known.wal_segment_size is None and not known.is_size_asked:
                known.is_size_asked = True
                found = self._first(lambda store: stored_segment_size(ClusterStore(store, layout)))
                known.wal_segment_size = known.wal_segment_size or found

    def _first(self, ask: Callable[[Store], _Answer | None]) -> _Answer | None:
        """Return the first answer of any store: all are asked at once, so that a dead one delays the others little."""
        answers: queue.SimpleQueue[_Answer | None] = queue.SimpleQueue()
        for store in self._stores.values():
            threading.Thread(target=lambda one=store: answers.put(ask(one)), daemon=True).start()
        deadline = time.monotonic() + _ASK_SECONDS
        for _ in self._stores:
            try:
                answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if answer is not None:
                return answer
        return None

    def segment_size(self, system_identifier: int) -> int | None:
        """Return the archive's segment size in bytes; None where nothing tells it. Raises: CatalogError."""
        self.look_up_segment_size(system_identifier)
        return self.cluster(system_identifier).wal_segment_size


def _open(place: ClusterStore, name: WalFileName, max_size_bytes: int) -> bytes | None:
    """Return a file's own bytes from a store; None where it has none. An encrypted one cannot be opened here."""
    source = read_source(place, name)
    if source is None:
        return None
    encoding = source.encoded.encoding
    return open_stored(
        bytes(source.encoded.body.data),
        encoding.codec,
        encrypted=encoding.encrypted,
        max_size_bytes=max_size_bytes,
    )


def stored_segment_size(place: ClusterStore) -> int | None:
    """Return the size in bytes of the segments on one store; None where it has none, or does not tell."""
    with _unknown("the archive's segment size"):
        for item in place.store.list(place.layout.wal_root):
            stored = place.layout.parse_wal_key(item.key)
            if stored is not None and stored.file.kind is FileKind.SEGMENT:
                found = place.store.head(item.key)
                return None if found is None else from_metadata(item.key, found.metadata)[0].wal_segment_size
    return None


@contextmanager
def _unknown(what: str) -> Iterator[None]:
    """Leave something unknown that a store does not tell, whatever goes wrong there: its uploads will say what."""
    try:
        yield
    except WalPipelineError as error:
        _log.info("%s is not known: %s", what, error.message)
    except Exception:  # noqa: BLE001 - one store's fault must not keep a file from the others
        _log.warning("%s is not known", what, exc_info=True)


def _remember(known: ClusterKnowledge, name: str, joints: SegmentJoints) -> None:
    known.joints[name] = joints
    while len(known.joints) > _MOST_JOINTS:
        del known.joints[next(iter(known.joints))]


def known_breaks(catalog: Catalog, system_identifier: int) -> dict[str, str]:
    """Return the archived segments that continue nothing, with the reason, as far as they are recorded.

    Raises: CatalogError.
    """
    return knowledge_from_json(catalog.values.get(_key(system_identifier)) or {}).breaks


def record_breaks(
    catalog: Catalog, system_identifier: int, compared: Collection[str], breaks: Mapping[str, str]
) -> dict[str, str]:
    """Record which of the segments that were ``compared`` continue nothing, and return all that are recorded then.

    Raises: CatalogError.
    """
    known = knowledge_from_json(catalog.values.get(_key(system_identifier)) or {})
    found = {name: reason for name, reason in known.breaks.items() if name not in compared} | dict(breaks)
    if found != known.breaks:
        known.breaks = found
        catalog.values.put(_key(system_identifier), knowledge_to_json(known))
    return found


def knowledge_to_json(known: ClusterKnowledge) -> dict[str, Any]:
    """Return what the catalog keeps of it."""
    newest = {
        str(timeline): {
            "name": name,
            "first_timeline": joints.first_timeline,
            "begins": None if joints.begins is None else str(joints.begins),
            "ends": None if joints.ends is None else str(joints.ends),
        }
        for timeline, (name, joints) in known.newest.items()
    }
    return {"newest": newest, "breaks": known.breaks}


def knowledge_from_json(values: Mapping[str, Any]) -> ClusterKnowledge:
    """Read what ``knowledge_to_json`` made."""
    known = ClusterKnowledge(breaks=dict(values.get("breaks", {})))
    for timeline, one in values.get("newest", {}).items():
        begins, ends = (None if one[key] is None else Joint.parse(one[key]) for key in ("begins", "ends"))
        joints = SegmentJoints(one["first_timeline"], begins=begins, ends=ends)
        known.newest[int(timeline)] = (one["name"], joints)
    return known


def _key(system_identifier: int) -> str:
    return f"continuity/{system_identifier}"
