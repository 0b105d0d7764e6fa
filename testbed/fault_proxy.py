"""Stands between a client and an S3 server, ends TLS, injects faults and keeps the requests it saw.

It passes the Host header on unchanged. The server checks the signature against it, so signed requests stay valid.
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

from botocore.config import Config

from testbed.fault_exchange import Exchange
from testbed.faults import Fault, Hang, ResetBefore, Rule, SeenRequest
from testbed.ports import LOOPBACK, free_port
from testbed.seaweed import SeaweedServer
from testbed.tls import TlsFiles

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy:
    """A proxy before one S3 server, at an address of its own. Without rules it changes nothing."""

    def __init__(self, upstream: SeaweedServer, *, tls: TlsFiles | None = None) -> None:
        self.upstream = upstream
        self.tls = tls or upstream.tls
        self.port = free_port()
        self._upstream_context = upstream.tls.client_context()
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._requests: list[SeenRequest] = []
        self._outage: Fault | None = None
        self.released = threading.Event()
        self._server: _Server | None = None

    @property
    def endpoint_url(self) -> str:
        """The address that the client uses instead of the server's."""
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def ca_bundle(self) -> Path:
        """The authority that signed the proxy's certificate."""
        return self.tls.ca_bundle

    def start(self) -> Self:
        """Listen in a thread of this process."""
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening, end hanging requests and close every connection."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_all()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def add(
        self, fault: Fault, *, method: str | None = None, key: str = "", nth: int = 1, times: int | None = 1
    ) -> Rule:
        """Add a rule as the last one, and return it for its ``hits``. The first rule that takes a request decides."""
        rule = Rule(fault, method=method, key=key, nth=nth, times=times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Drop all rules and end any outage."""
        with self._lock:
            self._rules.clear()
        self.up()

    def down(self) -> None:
        """Reset every connection from now on. Open connections are reset at their next request."""
        self._outage = ResetBefore()

    def blackhole(self) -> None:
        """Accept connections and requests from now on, and answer none."""
        self._outage = Hang()

    def up(self) -> None:
        """End an outage, and reset the requests that hang."""
        self._outage = None
        released, self.released = self.released, threading.Event()
        released.set()

    def forget(self) -> None:
        """Forget the requests seen so far."""
        with self._lock:
            self._requests.clear()

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """The requests seen, in order."""
        with self._lock:
            return tuple(self._requests)

    @property
    def counts(self) -> Counter[str]:
        """The number of requests seen, by method."""
        return Counter(request.method for request in self.requests)

    def client(self, *, config: Config | None = None) -> "S3Client":
        """Return a plain boto3 client that goes through the proxy."""
        return self.upstream.client(endpoint_url=self.endpoint_url, config=config)

    def note(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        """Record one request and return the fault that is due for it."""
        target = unquote(path)
        with self._lock:
            fault = self._outage or next((rule.fault for rule in self._rules if rule.takes(method, target)), None)
            self._requests.append(SeenRequest(method, target, headers, fault))
        return fault

    def connect_upstream(self) -> HTTPSConnection:
        """Open a connection to the server."""
        return HTTPSConnection(LOOPBACK, self.upstream.port, timeout=120, context=self._upstream_context)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._tls = proxy.tls.server_context()
        self._open: set[socket.socket] = set()
        super().__init__((LOOPBACK, proxy.port), _Handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        plain, address = super().get_request()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The handshake happens in the handler's thread, so that a silent client does not block the others.
        wrapped = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._open.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: in many tests a client closes its connection on purpose."""

    def end_all(self, *, wait_seconds: float = 10) -> None:
        """Reset every connection and wait for its handler to end.

        Only the handler's thread closes the socket. A socket closed under a thread that reads from it leaves that
        thread with a file descriptor's number that soon belongs to another file, and OpenSSL with a freed session.
        """
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        deadline = time.monotonic() + wait_seconds
        while self._open and time.monotonic() < deadline:
            time.sleep(0.01)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    server: _Server
    connection: ssl.SSLSocket
    upstream: HTTPSConnection | None = None

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def handle_expect_100(self) -> bool:
        """Leave the answer to the exchange, because a fault may come first."""
        return True

    def do_any(self) -> None:
        proxy = self.server.proxy
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = proxy.note(self.command, self.path, headers)
        if self.upstream is None:
            self.upstream = proxy.connect_upstream()
        try:
            Exchange(self, self.upstream, proxy.upstream, proxy.released).run(fault)
        except (OSError, ssl.SSLError) as error:
            # To the client a server that is down looks like a proxy that is down.
            self.close_connection = True
            self.upstream.close()
            self.upstream = None
            reset(self.connection)
            raise ConnectionAbortedError from error

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815  the base class's names

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_arguments: object) -> None:
        """Keep the tests' output free of request lines."""


def reset(connection: socket.socket) -> None:
    """Close a connection with a TCP reset, without TLS's close notification."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        connection.close()
