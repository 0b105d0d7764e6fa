"""Lets a folder store fail, die or lie at drawn calls, for the stateful test."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from wal_pipeline.errors import StoreUnavailableError
from wal_pipeline.stores.base import Body, PutOutcome
from wal_pipeline_tests.support.archive_scene import WatchedStore, folder_store

STORES = ("r2", "b2")
CALLS = ("put", "open", "head", "list", "delete")
TROUBLES = ("fail", "fail after", "die", "die after", "half", "flip", "swallow")


class KilledError(BaseException):
    """The process ends here."""


@dataclass
class Trouble:
    """The trouble of the ``nth`` call of a kind on one store. It happens once.

    With ``half``, ``flip`` and ``swallow`` the store lies: a put stores other bytes or none, and reports success.
    """

    store: str
    call: str
    nth: int
    kind: str


class TroubledStore(WatchedStore):
    """A folder store with troubles, which answers nothing while it is ``down``."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(folder_store(name, folder))
        self.down = False
        self._troubles: list[Trouble] = []
        self._seen: Counter[str] = Counter()
        self.before = lambda call, _: self._begin(call)

    def expect(self, troubles: Sequence[Trouble]) -> None:
        """Arm the troubles of this store."""
        self._troubles = [trouble for trouble in troubles if trouble.store == self.name]
        self._seen.clear()

    def put_if_absent(self, key: str, body: Body, metadata: Mapping[str, str]) -> PutOutcome:
        """Store the sent bytes, or those that the trouble makes of them."""
        lie = self._begin("put")
        if lie == "swallow":
            return PutOutcome.CREATED
        stored = Body.of(damaged(bytes(body.data), lie)) if lie in ("half", "flip") else body
        outcome = self.inner.put_if_absent(key, stored, metadata)
        self._end("put")
        return outcome

    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Read the stored bytes, or those that the trouble makes of them."""
        lie = self._begin("open")
        with self.inner.open(key, start=start) as stream:
            data = stream.read()
        self._end("open")
        return BytesIO(damaged(data, lie) if lie in ("half", "flip") else data)

    def delete(self, key: str) -> int:
        """Remove an object, and perhaps fail after that."""
        removed = super().delete(key)
        self._end("delete")
        return removed

    def _begin(self, call: str) -> str:
        """Fail or die before the call, or return the lie for its answer."""
        if self.down:
            raise StoreUnavailableError(self.name, f"cannot {call}: it is down")
        self._seen[call] += 1
        return self._act(call, "fail", "die")

    def _end(self, call: str) -> None:
        self._act(call, "fail after", "die after")

    def _act(self, call: str, failure: str, death: str) -> str:
        due = next((one.kind for one in self._troubles if (one.call, one.nth) == (call, self._seen[call])), "")
        if due == failure:
            raise StoreUnavailableError(self.name, "the connection was reset")
        if due == death:
            raise KilledError
        return due


def damaged(data: bytes, how: str) -> bytes:
    """Return half of the bytes, or all with one bit changed."""
    if how == "half":
        return data[: len(data) // 2]
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
