"""Runs an HTTPS server that follows a script, for answers that a healthy S3 server never gives."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from testbed.ports import LOOPBACK
from testbed.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class Request:
    """One request, with header names in lower case. ``connection`` counts the TLS connections from 1."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. ``cut_after``: close the connection after these bytes of ``body``; -1: before all of it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None

    def send(self, connection: ssl.SSLSocket, *, is_head: bool) -> bool:
        """Send the answer; False where the connection must be closed."""
        if self.cut_after == -1:
            return False
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
        body = b"" if is_head else self.body[: self.cut_after]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.cut_after is None


def error_reply(status: int, code: str, message: str = "said so", **headers: str) -> Reply:
    """Return S3's error document."""
    xml = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, xml.encode(), {"Content-Type": "application/xml", **headers})


class ScriptedServer:
    """A server that keeps each request and sends its replies in order, one for each request, and then 418."""

    def __init__(self, tls: TlsFiles, replies: Iterable[Reply]) -> None:
        self.requests: list[Request] = []
        self._replies = iter(replies)
        self._context = tls.server_context()
        self._listener = socket.create_server((LOOPBACK, 0))
        self._connections: list[ssl.SSLSocket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"https://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
            self._connections.append(connection)
            number = len(self._connections)
            with connection.makefile("rb") as stream:
                while line := stream.readline():
                    method, target, _ = line.decode().split(" ", 2)
                    headers = dict(_headers(stream))
                    body = stream.read(int(headers.get("content-length", 0)))
                    self.requests.append(Request(method, target, headers, body, number))
                    if not next(self._replies, Reply(418)).send(connection, is_head=method == "HEAD"):
                        return


def _headers(stream: Iterable[bytes]) -> Iterable[tuple[str, str]]:
    for line in stream:
        if line == b"\r\n":
            return
        name, _, value = line.decode().partition(":")
        yield name.lower(), value.strip()
