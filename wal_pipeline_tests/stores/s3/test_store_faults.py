"""A store copes with a server that misbehaves, and sends exactly the expected requests over TLS."""

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from testbed.tls import TlsFiles
from wal_pipeline.errors import (
    BucketMissingError,
    DamagedCopyError,
    ObjectLockedError,
    StoreAccessError,
    StoreError,
    StoreTooSlowError,
    StoreUnavailableError,
)
from wal_pipeline.stores.base import Body, PutOutcome
from wal_pipeline.stores.s3.client import Connection, SendBody
from wal_pipeline.stores.s3.profiles import B2, R2, StoreProfile
from wal_pipeline.stores.s3.store import S3Store, open_s3_store
from wal_pipeline_tests.support.scripted_server import Reply, ScriptedServer, error_reply
from wal_pipeline_tests.support.store_contract import read

SENT = Body.of(b"some bytes")
ETAG = {"ETag": f'"{SENT.md5.hex()}"'}
MODIFIED = {"Last-Modified": "Sun, 22 Nov 2026 18:00:00 GMT"}
SECRET = "secret-that-is-never-shown"
Scripted = Callable[..., tuple[S3Store, ScriptedServer]]


@pytest.fixture
def scripted(tls_files: TlsFiles) -> Iterator[Scripted]:
    """Open a store on a server that gives the replies named."""
    servers: list[ScriptedServer] = []

    def make(*replies: Reply, profile: StoreProfile = R2, max_attempts: int = 2) -> tuple[S3Store, ScriptedServer]:
        server = ScriptedServer(tls_files, replies).__enter__()
        servers.append(server)
        connection = Connection(
            store=profile.name,
            bucket="bucket",
            access_key_id="AKIDNEVERSHOWN",
            secret_access_key=SECRET,
            endpoint_url=server.url,
            region="auto",
            ca_bundle=tls_files.ca_bundle,
            concurrency=2,
            max_attempts=max_attempts,
            read_timeout_seconds=5,
        )
        return open_s3_store(profile, connection), server

    yield make
    for server in servers:
        server.__exit__(None, None, None)


def test_what_a_put_sends(scripted: Scripted) -> None:
    """The bytes as they are, both digests, the condition; no trailers, no other checksum, no Expect."""
    store, server = scripted(Reply(headers=ETAG))
    assert store.put_if_absent("a/b", SENT, {"wal-name": "x"}) is PutOutcome.CREATED
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("PUT", "/bucket/a/b", b"some bytes")
    headers = request.headers
    assert headers["content-md5"] == base64.b64encode(SENT.md5).decode()
    assert headers["x-amz-content-sha256"] == SENT.sha256
    assert headers["content-length"] == "10"
    assert headers["if-none-match"] == "*"
    assert headers["x-amz-meta-wal-name"] == "x"
    assert "content-md5;" in headers["authorization"]
    assert "x-amz-content-sha256;" in headers["authorization"]
    for absent in ("expect", "transfer-encoding", "content-encoding", "x-amz-trailer", "x-amz-sdk-checksum-algorithm"):
        assert absent not in headers
    assert not [name for name in headers if name.startswith("x-amz-checksum")]


def test_what_a_part_sends(scripted: Scripted) -> None:
    """As a put, without the condition."""
    begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    store, server = scripted(Reply(body=begun), Reply(headers=ETAG))
    store.upload_part(store.begin_upload("a", {}), 1, SENT)
    headers = server.requests[1].headers
    assert headers["x-amz-content-sha256"] == SENT.sha256
    assert headers["content-md5"] == base64.b64encode(SENT.md5).decode()
    assert not [name for name in headers if name.startswith("x-amz-checksum") or name in ("expect", "x-amz-trailer")]


def test_the_environment_changes_nothing(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile, an endpoint or a checksum mode of whoever runs this is not ours."""
    for name, value in {
        "AWS_PROFILE": "missing",
        "AWS_ENDPOINT_URL": "https://elsewhere.invalid",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SESSION_TOKEN": "other",
    }.items():
        monkeypatch.setenv(name, value)
    store, server = scripted(Reply(headers=ETAG))
    store.put_if_absent("a", SENT, {})
    assert "Credential=AKIDNEVERSHOWN/" in server.requests[0].headers["authorization"]
    assert "x-amz-security-token" not in server.requests[0].headers


@pytest.mark.parametrize(
    "fault",
    [
        error_reply(503, "SlowDown", "no tomes available"),
        error_reply(429, "TooManyRequests"),
        error_reply(500, "InternalError"),
        error_reply(200, "InternalError"),
        Reply(200, b"<Error", {}),
        Reply(cut_after=-1),
    ],
    ids=["503", "429", "500", "200-with-error", "200-with-half-an-answer", "cut"],
)
def test_a_passing_fault_is_tried_again(scripted: Scripted, fault: Reply) -> None:
    """The put that follows sends all bytes again."""
    store, server = scripted(fault, Reply(headers=ETAG))
    assert store.put_if_absent("a", SENT, {}) is PutOutcome.CREATED
    assert [request.body for request in server.requests] == [b"some bytes"] * 2
    assert store.meter.totals().requests["put_object"] == 2


def test_after_503_the_next_try_uses_a_new_connection(scripted: Scripted) -> None:
    """B2 says 503 when the machine behind the connection is full."""
    store, server = scripted(error_reply(503, "SlowDown"), Reply(headers=ETAG), Reply(headers=ETAG))
    store.put_if_absent("a", SENT, {})
    store.put_if_absent("b", SENT, {})
    assert [request.connection for request in server.requests] == [1, 2, 2]


def test_a_lasting_fault_is_unavailable(scripted: Scripted) -> None:
    """The message says what the store answered."""
    store, _ = scripted(*[error_reply(503, "SlowDown", "no tomes available")] * 2)
    with pytest.raises(StoreUnavailableError) as raised:
        store.put_if_absent("a", SENT, {})
    assert str(raised.value) == (
        "r2: cannot put object 'a': the store answered 503 SlowDown: no tomes available\n"
        "HINT: The store is busy or failing; the call is tried again later. If it lasts, see the provider's status."
    )


def test_a_lasting_error_inside_200_is_unavailable(scripted: Scripted) -> None:
    """An error in the body of a 200 is an error."""
    store, _ = scripted(*[error_reply(200, "InternalError")] * 2)
    with pytest.raises(StoreUnavailableError):
        store.put_if_absent("a", SENT, {})


@pytest.mark.parametrize("document", [b"", b"<html><body>Sign in</body></html>", b"<ListBucketResult/>"])
def test_a_page_that_is_no_listing_is_never_an_empty_one(scripted: Scripted, document: bytes) -> None:
    """It would prove the absence of everything."""
    for ask in (lambda s: list(s.list("p/")), lambda s: list(s.versions("p/")), lambda s: list(s.uploads("p/"))):
        store, _ = scripted(*[Reply(body=document)] * 2, profile=B2)
        with pytest.raises(StoreUnavailableError):
            ask(store)


def test_a_404_that_names_nothing_proves_no_absence(scripted: Scripted) -> None:
    """A proxy's 404 is an outage; S3's own word is needed."""
    store, server = scripted(Reply(404), Reply(404, b"<html>not here</html>"))
    with pytest.raises(StoreUnavailableError) as raised:
        store.head("a")
    assert raised.value.hint == "Check that R2_ENDPOINT_URL is the address of an S3 server."
    assert [request.method for request in server.requests] == ["HEAD", "GET"]
    store, _ = scripted(Reply(404), error_reply(404, "NoSuchBucket"))
    with pytest.raises(BucketMissingError):
        store.head("a")
    store, _ = scripted(Reply(404), error_reply(404, "NoSuchKey"))
    assert store.head("a") is None


def test_a_put_that_came_to_nothing_is_no_success(scripted: Scripted) -> None:
    """A 200 without an ETag, and no object behind it."""
    store, _ = scripted(Reply(), Reply(404), error_reply(404, "NoSuchKey"))
    with pytest.raises(StoreUnavailableError) as raised:
        store.put_if_absent("a", SENT, {})
    assert raised.value.message == "r2: object 'a' is absent after the store answered its put with 200"


def test_a_damaged_put_is_taken_back(scripted: Scripted) -> None:
    """The store answers another checksum than was sent, and the object has it too: it is ours, and is removed."""
    other = {"ETag": '"' + "0" * 32 + '"', **MODIFIED}
    store, server = scripted(Reply(headers=other), Reply(headers=other), Reply(headers=other), Reply(204))
    with pytest.raises(DamagedCopyError) as raised:
        store.put_if_absent("a", SENT, {})
    assert raised.value.message == f"r2: object 'a' has checksum '{'0' * 32}', expected '{SENT.md5.hex()}'"
    assert [request.method for request in server.requests] == ["PUT", "HEAD", "HEAD", "DELETE"]


def test_501_for_a_condition_is_remembered(scripted: Scripted) -> None:
    """After that the store looks first, and never sends the header again."""
    absent = [Reply(404), Reply(headers=ETAG)]
    store, server = scripted(error_reply(501, "NotImplemented"), *absent, *absent, max_attempts=1)
    assert [store.put_if_absent(key, SENT, {}) for key in "ab"] == [PutOutcome.CREATED] * 2
    assert [request.method for request in server.requests] == ["PUT", "HEAD", "PUT", "HEAD", "PUT"]
    assert ["if-none-match" in request.headers for request in server.requests] == [True, False, False, False, False]


def test_a_read_that_is_cut_goes_on_where_it_was(scripted: Scripted) -> None:
    """The rest is asked for, of the same object only."""
    data = bytes(range(200))
    rest = {"Content-Range": "bytes 120-199/200", **ETAG}
    store, server = scripted(Reply(body=data, headers=ETAG, cut_after=120), Reply(206, data[120:], rest))
    with store.open("a") as stream:
        pieces = list(iter(lambda: stream.read(60), b""))
    assert b"".join(pieces) == data
    assert server.requests[1].headers["range"] == "bytes=120-"
    assert server.requests[1].headers["if-match"] == ETAG["ETag"]


def test_a_read_that_is_cut_again_and_again_is_an_error(scripted: Scripted) -> None:
    """Never a short object."""
    cut = Reply(body=b"x" * 100, headers=ETAG, cut_after=0)
    store, _ = scripted(*[cut] * 4)
    with pytest.raises(StoreUnavailableError):
        read(store, "a")


def test_an_object_that_changed_while_it_was_read_is_an_error(scripted: Scripted) -> None:
    """Two halves of two objects are no object."""
    cut = Reply(body=b"x" * 100, headers=ETAG, cut_after=50)
    store, _ = scripted(cut, error_reply(412, "PreconditionFailed"))
    with pytest.raises(StoreUnavailableError) as raised, store.open("a") as stream:
        while stream.read(50):
            pass
    assert raised.value.message == "r2: object 'a' changed while it was read"


def test_a_success_that_is_not_s3s_is_an_error(scripted: Scripted) -> None:
    """A sign-in page answers 200 to everything."""
    store, _ = scripted(*[Reply(200, b"<html>Sign in</html>")] * 3)
    for call in (lambda: store.head("a"), lambda: store.begin_upload("a", {}), store.check_access):
        with pytest.raises(StoreUnavailableError, match="answered with something that is not S3's"):
            call()


def test_a_clock_that_is_off_is_named(scripted: Scripted) -> None:
    """A HEAD's 403 has no text, but the server's clock."""
    date = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    store, _ = scripted(Reply(403, headers={"Date": date}))
    with pytest.raises(StoreAccessError, match=r"this machine's clock differs from the store's by 3[56]") as raised:
        store.head("a")
    assert raised.value.hint == (
        "Set this machine's clock (NTP): a request signed more than 15 minutes off is refused."
    )


def test_no_key_is_shown_even_where_the_store_repeats_it(scripted: Scripted) -> None:
    """Some servers put the key into their message."""
    store, _ = scripted(error_reply(403, "InvalidAccessKeyId", f"key AKIDNEVERSHOWN of {SECRET} is not known"))
    with pytest.raises(StoreAccessError) as raised:
        store.open("a")
    assert "(403 InvalidAccessKeyId: key *** of *** is not known)" in raised.value.message
    assert raised.value.__cause__ is None


def test_a_bucket_lock_of_r2_is_named(scripted: Scripted) -> None:
    """R2 says it in the code."""
    found = Reply(headers={**ETAG, **MODIFIED})
    store, _ = scripted(found, error_reply(403, "ObjectLockedByBucketPolicy", "The object is locked"))
    with pytest.raises(ObjectLockedError):
        store.delete("a")


def test_an_unexpected_answer_is_an_error_of_the_store(scripted: Scripted) -> None:
    """Nothing of boto3 gets out."""
    store, _ = scripted(error_reply(418, "Teapot", "short and stout"))
    with pytest.raises(StoreError) as raised:
        store.check_access()
    assert raised.value.message == "r2: cannot list objects: the store answered 418 Teapot: short and stout"


def test_making_a_store_sends_nothing(scripted: Scripted) -> None:
    """The network is not touched before the first call."""
    _, server = scripted()
    assert server.requests == []


class StandingServer:
    """A server that takes a TLS connection and then reads nothing: a line that carries no more bytes."""

    def __init__(self, tls: TlsFiles) -> None:
        self._context = tls.server_context()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                self._connections.append(self._context.wrap_socket(plain, server_side=True))


def test_our_own_time_limit_is_not_told_as_a_connection_that_the_store_closed(tls_files: TlsFiles) -> None:
    """The line is too slow for so many uploads: the setting is named, and the next tries send small pieces."""
    server = StandingServer(tls_files)
    connection = Connection(
        store="r2",
        bucket="bucket",
        access_key_id="AKIDNEVERSHOWN",
        secret_access_key=SECRET,
        endpoint_url=server.url,
        region="auto",
        ca_bundle=tls_files.ca_bundle,
        max_attempts=2,
        connect_timeout_seconds=0.5,
        read_timeout_seconds=0.5,
    )
    store = open_s3_store(R2, connection)
    try:
        with pytest.raises(StoreTooSlowError) as raised:
            store.put_if_absent("a/b", Body.of(bytes(32 << 20)), {})
    finally:
        server.close()
    assert raised.value.message == (
        f"r2: cannot put object 'a/b': '{server.url}' took no more bytes within our own time limit"
    )
    assert raised.value.hint is not None
    assert "lower WAL_PIPELINE_CONCURRENCY" in raised.value.hint
    assert len(SendBody(Body.of(bytes(1 << 20)), store._client.pace).read()) == 16 * 1024


def test_an_upload_that_is_not_confirmed_in_time_is_our_own_limit_too(scripted: Scripted, tls_files: TlsFiles) -> None:
    """What was sent may still lie in this machine's buffers."""
    server = StandingServer(tls_files)
    store, _ = scripted(profile=R2)
    slow = replace(store._client.connection, endpoint_url=server.url, read_timeout_seconds=0.3, max_attempts=1)
    try:
        with pytest.raises(StoreTooSlowError, match="did not confirm the upload within our own time limit"):
            open_s3_store(R2, slow).put_if_absent("a/b", SENT, {})
        with pytest.raises(StoreUnavailableError, match="stopped answering"):
            open_s3_store(R2, slow).head("a/b")
    finally:
        server.close()


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_no_variable_of_other_programs_chooses_whom_we_trust(
    scripted: Scripted, tls_files: TlsFiles, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """AWS_CA_BUNDLE did, whatever the settings said."""
    monkeypatch.setenv(name, str(tls_files.ca_bundle))
    store, _ = scripted(Reply(headers=ETAG))
    unsaid = replace(store._client.connection, ca_bundle=None, max_attempts=1)
    with pytest.raises(StoreUnavailableError, match="does not prove who it is") as raised:
        open_s3_store(R2, unsaid).head("a/b")
    assert "WAL_PIPELINE_CA_BUNDLE" in (raised.value.hint or "")
