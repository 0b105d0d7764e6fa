"""Puts a round trip time and a bandwidth between a client and a server, as a TCP proxy.

``python -m benchmarks.delay_proxy LISTEN TARGET ROUND_TRIP_SECONDS BYTES_PER_SECOND``. Each direction has the
bandwidth, which all connections share, as on a line. The proxy answers the three-way handshake at once, so a client
that opens many connections is measured one round trip too fast for each.
"""

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass

_CHUNK_BYTES = 64 * 1024
_WINDOW_CHUNKS = 64  # 4 MiB in flight on each connection, as in a tuned TCP window


@dataclass(slots=True)
class _Line:
    """One direction of the line: when its last byte will have left."""

    bytes_per_second: float
    free_at: float = 0.0

    def send(self, size_bytes: int, now: float) -> float:
        """Return the time at which a chunk handed over now has left."""
        self.free_at = max(self.free_at, now) + size_bytes / self.bytes_per_second
        return self.free_at


class DelayProxy:
    """Carries each connection to the target, with the delay and the bandwidth of the line."""

    def __init__(self, target_port: int, round_trip_seconds: float, bytes_per_second: float) -> None:
        self._target_port = target_port
        self._one_way_seconds = round_trip_seconds / 2
        self._up = _Line(bytes_per_second)
        self._down = _Line(bytes_per_second)

    async def serve(self, port: int) -> None:
        """Take connections until cancelled."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", port, limit=4 * _CHUNK_BYTES)
        async with server:
            await server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pipe(reader, far_writer, self._up), self._pipe(far_reader, writer, self._down))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW_CHUNKS)
        reading = asyncio.create_task(self._read(reader, chunks, line))
        with suppress(OSError):
            while (item := await chunks.get())[1]:
                await asyncio.sleep(max(0.0, item[0] - asyncio.get_running_loop().time()))
                writer.write(item[1])
                await writer.drain()
        reading.cancel()
        writer.close()

    async def _read(
        self, reader: asyncio.StreamReader, chunks: "asyncio.Queue[tuple[float, bytes]]", line: _Line
    ) -> None:
        clock = asyncio.get_running_loop().time
        data = b"."
        while data:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            await chunks.put((line.send(len(data), clock()) + self._one_way_seconds, data))


if __name__ == "__main__":
    listen, target, seconds, rate = sys.argv[1:]
    asyncio.run(DelayProxy(int(target), float(seconds), float(rate)).serve(int(listen)))
