"""Makes the boto3 client, sends calls, and turns its exceptions into ours; no other module imports boto3."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.auth
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from wal_pipeline.errors import StoreError, StoreTooSlowError, StoreUnavailableError
from wal_pipeline.stores.base import Body
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline.stores.s3.errors import Call, ErrorAnswer, error_of
from wal_pipeline.stores.s3.listing_parser import moment, take_entries
from wal_pipeline.stores.s3.trust import trusted_authorities
from wal_pipeline.text import on_one_line

_SIGNATURE: Final = "wal-pipeline-s3v4"
_SEND_BYTES: Final = 256 * 1024
_SLOW_SEND_BYTES: Final = 16 * 1024
_UPLOADS: Final = frozenset({"put_object", "upload_part"})
# No file and no AWS_* variable of the user who runs this may change the target of our requests.
_NO_PROFILE: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
    "ignore_configured_endpoint_urls": (None, None, True, None),
    "ca_bundle": (None, None, None, None),
}


@dataclass(frozen=True, slots=True)
class Connection:
    """The way to one bucket. ``store`` names it in errors; the keys are never shown.

    ``ca_bundle`` holds authorities that are trusted beside the usual ones. ``proxy_url`` is as HTTPS_PROXY has it; an
    empty one means no proxy, and None what the environment says. ``concurrency`` is the number of threads that call at
    once. One request is sent at most ``max_attempts`` times.
    """

    store: str
    bucket: str
    endpoint_url: str
    region: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    ca_bundle: Path | None = None
    proxy_url: str | None = field(default=None, repr=False)
    concurrency: int = 4
    max_attempts: int = 5
    connect_timeout_seconds: float = 10
    read_timeout_seconds: float = 60


@dataclass(slots=True)
class Pace:
    """How many bytes are handed to a connection at once: fewer for good once that took too long.

    A connection's time limit counts for each piece. On a slow line that several uploads share, 256 KiB can take longer.
    """

    send_bytes: int = _SEND_BYTES

    def slow_down(self) -> None:
        """Send small pieces from now on."""
        self.send_bytes = _SLOW_SEND_BYTES


class SendBody:
    """A request body that sends a buffer without copying it, and knows its SHA-256.

    boto3 would hash a plain ``bytes`` body once more to sign it, and it refuses a ``memoryview``. ``read`` returns up
    to 256 KiB whatever the requested size: urllib3 requests 16 KiB, which costs a TLS record and a Python call each.
    """

    def __init__(self, body: Body, pace: Pace | None = None) -> None:
        self.sha256 = body.sha256
        self._pace = pace or Pace()
        self._view = memoryview(body.data).cast("B")
        self._position = 0

    def __len__(self) -> int:
        return len(self._view)

    def __bool__(self) -> bool:
        return True

    def read(self, _size: int = -1) -> memoryview:
        """Return the next bytes, as many as the pace says; empty at the end."""
        chunk = self._view[self._position : self._position + self._pace.send_bytes]
        self._position += len(chunk)
        return chunk

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Set the position: boto3 sets it to 0 before it tries again."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._view)}[whence]
        self._position = base + position
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


class _KnownDigestAuth(botocore.auth.S3SigV4Auth):
    """Signs requests (version 4) with the payload's SHA-256 that the body knows already."""

    def payload(self, request: Any) -> str:
        """Return the digest that is signed and sent as ``x-amz-content-sha256``."""
        known: str | None = getattr(request.body, "sha256", None)
        return known if known is not None else super().payload(request)


botocore.auth.AUTH_TYPE_MAPS[_SIGNATURE] = _KnownDigestAuth


class S3Client:
    """Sends S3 calls for one bucket. Makes no network call before the first; safe from several threads."""

    def __init__(self, connection: Connection, meter: RequestMeter) -> None:
        self.connection = connection
        self.meter = meter
        self.pace = Pace()
        self._client = _make_client(connection)
        self._client.meta.events.register_first("needs-retry.s3", self._note_slow_line)

    def call(
        self, operation: str, action: str, *, key: str = "", needs: tuple[str, ...] = (), **parameters: Any
    ) -> dict[str, Any]:
        """Send one S3 operation (``put_object``) and return its answer; ``action`` follows "cannot" in errors.

        An answer without the fields in ``needs`` is not S3's, whatever its status.

        Raises: a StoreError.
        """
        call = self.describe(operation, action, key)
        if key:
            parameters["Key"] = key
        started = time.monotonic()
        tries, failed = 1, True
        try:
            with self.translating(call):
                answer: dict[str, Any] = getattr(self._client, operation)(Bucket=call.bucket, **parameters)
            tries = 1 + answer["ResponseMetadata"].get("RetryAttempts", 0)
            if any(name not in answer for name in needs):
                raise _not_understood(call)
            failed = False
            return answer
        finally:
            self.meter.count(operation, seconds=time.monotonic() - started, requests=tries, failed=failed)

    def describe(self, operation: str, action: str, key: str = "") -> Call:
        """Describe a call for its errors."""
        to = self.connection
        return Call(to.store, to.bucket, to.endpoint_url, operation, action, key)

    @contextmanager
    def translating(self, call: Call) -> Iterator[None]:
        """Turn the exceptions that boto3 raises inside into ours."""
        try:
            yield
        except ClientError as error:
            raise error_of(call, self._answer_of(error), now=datetime.now(UTC)) from None
        except ParamValidationError as error:
            raise StoreError(call.store, f"cannot {call.action}: {self._clean(error)}") from None
        except ResponseParserError:
            raise _not_understood(call) from None
        except (BotoCoreError, HTTPError, OSError) as error:
            raise self._unreachable(call, error) from None

    def _answer_of(self, error: ClientError) -> ErrorAnswer:
        said: Mapping[str, Any] = error.response.get("Error", {})
        metadata: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
        return ErrorAnswer(
            status=int(metadata.get("HTTPStatusCode", 500)),
            code=self._clean(said.get("Code", "")),
            message="" if said.get("Message") is None else self._clean(said["Message"]),
            dated_at=_date(metadata.get("HTTPHeaders", {}).get("date")),
        )

    def _note_slow_line(self, caught_exception: BaseException | None = None, **_event: Any) -> None:
        """Send smaller pieces in the tries that follow our own time limit."""
        if caught_exception is not None and _is_own_write_limit(caught_exception):
            self.pace.slow_down()

    def _unreachable(self, call: Call, error: BaseException) -> StoreUnavailableError:
        if _is_own_write_limit(error):
            return _too_slow(call, "took no more bytes")
        if isinstance(error, ReadTimeoutError) and call.operation in _UPLOADS:
            return _too_slow(call, "did not confirm the upload")
        hint = (
            f"Check the network, {call.settings_prefix}_ENDPOINT_URL and, where a proxy is needed, HTTPS_PROXY in the "
            "settings file; the call is tried again later."
        )
        if isinstance(error, SSLError):
            hint = (
                "The server's certificate is not trusted: check the endpoint, this machine's clock and "
                "WAL_PIPELINE_CA_BUNDLE, whose authorities are trusted beside the usual ones."
            )
        if isinstance(error, ProxyConnectionError):
            hint = "Check HTTPS_PROXY and NO_PROXY, of the environment or the settings file; it is tried again later."
        return StoreUnavailableError(
            call.store, f"cannot {call.action}: '{call.endpoint_url}' {self._reason(error)}", hint=hint
        )

    def _reason(self, error: BaseException) -> str:
        """Say in short why no answer came; urllib3's own text shows the addresses of Python objects."""
        words = {
            "ConnectTimeoutError": "did not answer in time",
            "ReadTimeoutError": "stopped answering",
            "EndpointConnectionError": "cannot be reached",
            "ConnectionClosedError": "closed the connection",
            "ResponseStreamingError": "closed the connection",
            "IncompleteReadError": "closed the connection",
            "ProxyConnectionError": "cannot be reached through the proxy",
            "SSLError": "does not prove who it is",
        }
        name = type(error).__name__
        return words.get(name) or f"failed with {name}: {self._clean(error)}"

    def _clean(self, text: object) -> str:
        """Return provider text on one line, without our keys."""
        to = self.connection
        return on_one_line(str(text), (to.secret_access_key, to.access_key_id, to.proxy_url or ""))


def _is_own_write_limit(error: BaseException) -> bool:
    """Whether our own time limit for a write passed: botocore takes that for a connection that the server closed."""
    if isinstance(error, (ReadTimeoutError, ConnectTimeoutError)):
        return False
    seen: list[object] = [error]
    for one in seen:
        if type(one) is TimeoutError:
            return True
        inner = getattr(one, "kwargs", {}).get("error") if isinstance(one, BotoCoreError) else None
        more = [inner, *getattr(one, "args", ()), getattr(one, "__cause__", None), getattr(one, "__context__", None)]
        seen += [found for found in more if isinstance(found, BaseException) and found not in seen]
    return False


def _too_slow(call: Call, what: str) -> StoreTooSlowError:
    return StoreTooSlowError(
        call.store,
        f"cannot {call.action}: '{call.endpoint_url}' {what} within our own time limit",
        hint="The line is slow, or carries too many uploads at once: fewer are sent at once from now on. Where it "
        "happens again and again, lower WAL_PIPELINE_CONCURRENCY.",
    )


@cache
def _loader() -> Loader:
    """Read botocore's description of S3 once for all clients: with it a client takes 5 ms, without it 60 to 100."""
    return Loader()


def _make_client(to: Connection) -> Any:
    core = botocore.session.Session(session_vars=_NO_PROFILE)
    core.register_component("data_loader", _loader())
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    session = boto3.session.Session(
        aws_access_key_id=to.access_key_id,
        aws_secret_access_key=to.secret_access_key,
        region_name=to.region,
        botocore_session=core,
    )
    verify = trusted_authorities(to.ca_bundle)
    client = session.client("s3", endpoint_url=to.endpoint_url, verify=verify, config=_config(to))
    events = client.meta.events
    for operation in ("PutObject", "UploadPart"):
        events.register_first(f"choose-signer.s3.{operation}", _known_digest_signer)
    events.register("before-sign.s3", _drop_expect)
    for operation in ("ListObjectsV2", "ListObjectVersions"):
        # Registered under "s3" it would run after the search for an error in a 200, which reads the whole page too.
        events.register(f"before-parse.*.{operation}", take_entries)
    events.register_first("needs-retry.s3", _NewConnectionAfter503(client))
    return client


def _config(to: Connection) -> Config:
    return Config(
        signature_version="s3v4",
        # The default since boto3 1.36 sends CRC32 in an aws-chunked trailer, which R2 and B2 do not take.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path", "payload_signing_enabled": True},
        retries={"mode": "standard", "total_max_attempts": to.max_attempts},
        connect_timeout=to.connect_timeout_seconds,
        read_timeout=to.read_timeout_seconds,
        max_pool_connections=max(to.concurrency, 1),
        tcp_keepalive=True,
        proxies=_proxies(to.proxy_url),
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
    )


def _proxies(url: str | None) -> dict[str, str] | None:
    if url is None:
        return None
    return {"https": url, "http": url} if url else {}


def _known_digest_signer(**_event: Any) -> Any:
    return _SIGNATURE


def _drop_expect(request: Any, **_event: Any) -> None:
    # boto3 sends Expect: 100-continue with every streamed body, and waits a second where the server is silent.
    del request.headers["Expect"]


class _NewConnectionAfter503:
    """Closes the connections after a 503: B2's machine behind one is full, and the next try must reach another."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self, response: tuple[Any, Any] | None = None, **_event: Any) -> None:
        if response is not None and response[0].status_code == 503:
            self._client.close()


def _not_understood(call: Call) -> StoreUnavailableError:
    return StoreUnavailableError(
        call.store,
        f"cannot {call.action}: '{call.endpoint_url}' answered with something that is not S3's",
        hint=f"Check that {call.settings_prefix}_ENDPOINT_URL is an S3 server's address, not a proxy's or a page's.",
    )


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
