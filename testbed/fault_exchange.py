"""Carries one request through the fault proxy, to the store and back, with the fault that is due."""

import base64
import contextlib
import functools
import hashlib
import http.client
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.exceptions import BotoCoreError, ClientError

from testbed import faults
from testbed.faults import Fault
from testbed.seaweed import SeaweedServer

_BLOCK_BYTES = 256 * 1024
_PER_CONNECTION = {"connection", "keep-alive", "expect", "proxy-connection", "transfer-encoding"}


class BrokenConnectionError(ConnectionError):
    """The proxy must reset the connection to the client."""


class Exchange:
    """One request and its answer. A ``ConnectionError`` from ``run`` means: reset the client's connection."""

    def __init__(
        self,
        client: BaseHTTPRequestHandler,
        upstream: HTTPSConnection,
        store: SeaweedServer,
        released: threading.Event,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._store = store
        self._released = released
        self._body_bytes = int(client.headers.get("Content-Length") or 0)
        self._is_chunked = "chunked" in (client.headers.get("Transfer-Encoding") or "").lower()

    def run(self, fault: Fault | None) -> None:
        """Carry the request to the store and the answer back, changed by the fault."""
        match fault:
            case None:
                self._answer_from_store(self._ask_store())
            case faults.Delay():
                self._released.wait(fault.seconds)
                self._answer_from_store(self._ask_store())
            case faults.Hang():
                self._released.wait()
                raise BrokenConnectionError
            case faults.ResetBefore():
                raise BrokenConnectionError
            case faults.Answer():
                self._drain()
                self._answer_error(fault.status, fault.code, fault.message, fault.headers)
            case faults.Swallow():
                self._pretend(None)
            case faults.StoreHalf():
                self._pretend(lambda body: body[: len(body) // 2])
            case faults.StoreFlipped():
                self._pretend(flipped)
            case faults.DeliverLate():
                self._deliver_late(self._drain(), fault.seconds)
                raise BrokenConnectionError
            case _:
                self._run_to_store(fault)

    def _run_to_store(
        self, fault: faults.ResetInBody | faults.ResetAfter | faults.AnswerAfter | faults.Truncate | faults.Flip
    ) -> None:
        """Do the faults that come after the store has seen the request."""
        match fault:
            case faults.ResetInBody():
                self._ask_store(stop_after_bytes=fault.after_bytes)
            case faults.ResetAfter():
                self._ask_store().read()
                raise BrokenConnectionError
            case faults.AnswerAfter():
                self._ask_store().read()
                self._answer_error(fault.status, fault.code, fault.message)
            case faults.Truncate():
                self._answer_from_store(self._ask_store(), share=fault.share)
            case faults.Flip():
                self._answer_from_store(self._ask_store(), change=flipped_in_reading)

    def _body(self) -> Iterator[bytes]:
        """Yield the request's body; answer a client that waits for 100 Continue."""
        if (self._client.headers.get("Expect") or "").lower() == "100-continue":
            self._client.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        yield from self._chunks() if self._is_chunked else self._plain()

    def _plain(self) -> Iterator[bytes]:
        left = self._body_bytes
        while left > 0:
            block = self._client.rfile.read(min(left, _BLOCK_BYTES))
            if not block:
                raise BrokenConnectionError
            left -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._client.rfile.readline().split(b";")[0], 16):
            yield self._client.rfile.read(size)
            self._client.rfile.readline()
        while self._client.rfile.readline().strip():
            pass

    def _drain(self) -> bytes:
        return b"".join(self._body())

    def _ask_store(self, *, stop_after_bytes: int | None = None) -> HTTPResponse:
        self._upstream.putrequest(self._client.command, self._client.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self._client.headers.items():
            if name.lower() not in _PER_CONNECTION:
                self._upstream.putheader(name, value)
        if self._is_chunked:
            self._upstream.putheader("Transfer-Encoding", "chunked")
        self._upstream.endheaders()
        sent = 0
        for block in self._body():
            if stop_after_bytes is not None and sent + len(block) > stop_after_bytes:
                self._upstream.send(block[: stop_after_bytes - sent])
                break
            self._upstream.send(b"%x\r\n%b\r\n" % (len(block), block) if self._is_chunked else block)
            sent += len(block)
        if stop_after_bytes is not None:
            self._upstream.close()
            raise BrokenConnectionError
        if self._is_chunked:
            self._upstream.send(b"0\r\n\r\n")
        try:
            return self._upstream.getresponse()
        except http.client.HTTPException as error:
            raise BrokenConnectionError from error

    def _answer_from_store(
        self, answer: HTTPResponse, *, share: float | None = None, change: Callable[[bytes], bytes] | None = None
    ) -> None:
        client = self._client
        client.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _PER_CONNECTION:
                client.send_header(name, value)
        length = answer.getheader("Content-Length")
        has_body = client.command != "HEAD" and answer.status not in {204, 304}
        if has_body and length is None:
            client.send_header("Transfer-Encoding", "chunked")
        client.end_headers()
        if not has_body:
            answer.read()
        elif share is not None:
            body = answer.read()
            client.wfile.write(body[: int(len(body) * share)])
            raise BrokenConnectionError
        elif change is not None or length is None:
            self._send_whole(answer.read(), change, is_chunked=length is None)
        else:
            while block := answer.read(_BLOCK_BYTES):
                client.wfile.write(block)

    def _send_whole(self, body: bytes, change: Callable[[bytes], bytes] | None, *, is_chunked: bool) -> None:
        body = body if change is None else change(body)
        if not is_chunked:
            self._client.wfile.write(body)
            return
        if body:
            self._client.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        self._client.wfile.write(b"0\r\n\r\n")

    def _answer_error(self, status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{escape(message)}</Message>'
        self._answer(status, (body + "<RequestId>fault-proxy</RequestId></Error>").encode(), dict(headers))

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._client.send_response(status)
        for name, value in {"Content-Type": "application/xml", **headers, "Content-Length": str(len(body))}.items():
            self._client.send_header(name, value)
        self._client.end_headers()
        if self._client.command != "HEAD":
            self._client.wfile.write(body)

    def _pretend(self, change: Callable[[bytes], bytes] | None) -> None:
        """Answer as if the body had been stored, and store the result of ``change``, or nothing."""
        body = self._drain()
        if change is not None:
            self._store_instead(change(body))
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self._answer(200, b"", {"ETag": f'"{etag}"'})

    def _deliver_late(self, body: bytes, seconds: float) -> None:
        threading.Thread(target=self._store_quietly, args=(body, seconds), daemon=True).start()

    def _store_quietly(self, body: bytes, seconds: float) -> None:
        """Store the body later. Nobody waits for the answer, such as that the object is there by now."""
        self._released.wait(seconds)
        with contextlib.suppress(BotoCoreError, ClientError):
            self._store_instead(body)

    def _store_instead(self, body: bytes) -> None:
        bucket, _, key = unquote(urlsplit(self._client.path).path).lstrip("/").partition("/")
        prefix = "x-amz-meta-"
        metadata = {
            name.lower().removeprefix(prefix): value
            for name, value in self._client.headers.items()
            if name.lower().startswith(prefix)
        }
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        put = functools.partial(self._store.client().put_object, Bucket=bucket, Key=key, Body=body, Metadata=metadata)
        if condition := self._client.headers.get("If-None-Match"):
            put(ContentMD5=digest, IfNoneMatch=condition)
        else:
            put(ContentMD5=digest)


def flipped(body: bytes) -> bytes:
    """Return the bytes with one bit changed in their middle."""
    return _changed(body, 1)


def flipped_in_reading(body: bytes) -> bytes:
    """Return the bytes with another bit changed: the same bit would make a body that was stored flipped look good."""
    return _changed(body, 2)


def _changed(body: bytes, mask: int) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes(value ^ mask for value in body[middle : middle + 1]) + body[middle + 1 :]
