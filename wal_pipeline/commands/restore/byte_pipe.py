"""Hands bytes from one thread to the next in their order: bounded in memory, and never copied."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Sink = Callable[[bytes], object]
Producer = Callable[[Sink], object]
_HELD_BYTES: Final = 32 << 20


class _Relay:
    """Chunks that one thread has made and the other has not taken yet. One always fits, however large it is."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._abandoned = False
        self._changed = threading.Condition()

    def put(self, chunk: bytes) -> None:
        """Wait for room. Raises: BrokenPipeError where nobody takes any more."""
        with self._changed:
            while self._chunks and self._held_bytes + len(chunk) > _HELD_BYTES and not self._abandoned:
                self._changed.wait()
            if self._abandoned:
                raise BrokenPipeError
            self._chunks.append(chunk)
            self._held_bytes += len(chunk)
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def taken(self) -> Iterator[bytes]:
        """Yield the chunks; raises what the producer raised, after the last chunk before it."""
        while True:
            with self._changed:
                while not self._chunks and not self._ended:
                    self._changed.wait()
                if not self._chunks:
                    break
                chunk = self._chunks.popleft()
                self._held_bytes -= len(chunk)
                self._changed.notify_all()
            yield chunk
        if self._failure is not None:
            raise self._failure


@contextmanager
def relayed(produce: Producer, name: str) -> Iterator[Iterator[bytes]]:
    """Run ``produce`` in a thread of this name; the block takes the chunks that it passes to its sink.

    Where the block gives up, the sink raises BrokenPipeError, so that the producer ends too.
    """
    relay = _Relay()

    def work() -> None:
        try:
            produce(relay.put)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that takes
            relay.end(error)
        else:
            relay.end()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield relay.taken()
    except Exception:
        relay.abandon()
        thread.join()
        raise
    except BaseException:  # an interrupted restore does not wait for a download
        relay.abandon()
        raise
    relay.abandon()
    thread.join()


def through(produce: Producer, look: Sink, name: str) -> Producer:
    """Return a producer of the same bytes that shows each chunk to ``look`` first, beside the making of the next."""

    def work(sink: Sink) -> None:
        with relayed(produce, name) as chunks:
            for chunk in chunks:
                look(chunk)
                sink(chunk)

    return work
