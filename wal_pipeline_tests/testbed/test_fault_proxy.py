"""Tests that the fault proxy is invisible without rules, and injects each fault exactly."""

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError
from mypy_boto3_s3.client import S3Client

from testbed import faults
from testbed.fault_exchange import flipped
from testbed.fault_proxy import FaultProxy
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.seaweed import SeaweedServer

pytestmark = pytest.mark.integration
BODY = b"some bytes of a body " * 50_000
NETWORK_ERRORS = (BotoConnectionError, HTTPClientError, IncompleteReadError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Route:
    """A client that never tries twice, its proxy, and the bucket behind."""

    client: S3Client
    proxy: FaultProxy
    server: SeaweedServer
    bucket: str

    def put(self, key: str = "key", body: bytes = BODY) -> int:
        """Put an object through the proxy and return the HTTP status."""
        return self.client.put_object(Bucket=self.bucket, Key=key, Body=body)["ResponseMetadata"]["HTTPStatusCode"]

    def get(self, key: str = "key") -> bytes:
        """Read an object through the proxy."""
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def stored(self, key: str = "key") -> bytes | None:
        """The bytes that the server has under the key."""
        return self.server.read(self.bucket, key) if key in self.server.keys(self.bucket) else None


@pytest.fixture
def route(s3_pair: S3Pair, s3_buckets: S3Buckets) -> Iterator[Route]:
    """A way through a proxy to a fresh bucket on r2."""
    with FaultProxy(s3_pair.r2) as proxy:
        client = proxy.client(config=Config(retries={"total_max_attempts": 1}))
        yield Route(client, proxy, s3_pair.r2, s3_buckets.r2)


def test_without_rules_signed_requests_pass_unchanged(route: Route) -> None:
    """Puts, reads, lists and deletes go through, keys with odd characters too, and are counted."""
    bucket, key = route.bucket, "a folder/ö+%&=?.gz"
    route.client.put_object(Bucket=bucket, Key=key, Body=BODY, Metadata={"a": "b"})
    assert route.get(key) == BODY
    assert route.client.head_object(Bucket=bucket, Key=key)["Metadata"] == {"a": "b"}
    assert [item["Key"] for item in route.client.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    route.client.delete_object(Bucket=bucket, Key=key)
    assert route.stored(key) is None
    assert route.proxy.counts == {"PUT": 1, "GET": 2, "HEAD": 1, "DELETE": 1}
    assert route.proxy.requests[0].headers["x-amz-meta-a"] == "b"


@pytest.mark.parametrize(
    ("fault", "code", "leaves"),
    [
        (faults.SLOW_DOWN, (503, "SlowDown"), None),
        (faults.TOO_MANY_REQUESTS, (429, "TooManyRequests"), None),
        (faults.ERROR_IN_200, (500, "InternalError"), None),  # botocore reads the body and makes it a 500
        (faults.AnswerAfter(503, "SlowDown"), (503, "SlowDown"), BODY),
    ],
)
def test_error_answers(route: Route, fault: faults.Fault, code: tuple[int, str], leaves: bytes | None) -> None:
    """The client gets the S3 error once; the next put passes."""
    rule = route.proxy.add(fault, method="PUT", key="key")
    with pytest.raises(ClientError) as caught:
        route.put()
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == code
    assert route.stored() == leaves
    route.put()
    assert (route.stored(), rule.hits) == (BODY, 1)


@pytest.mark.parametrize(
    ("fault", "leaves"),
    [
        (faults.ResetBefore(), None),
        (faults.ResetInBody(after_bytes=len(BODY) // 2), None),
        (faults.ResetAfter(), BODY),
    ],
)
def test_resets(route: Route, fault: faults.Fault, leaves: bytes | None) -> None:
    """A reset before or in the body stores nothing, one after the body leaves the object."""
    route.proxy.add(fault, method="PUT", nth=2)
    route.put("first", b"")
    with pytest.raises(NETWORK_ERRORS):
        route.put()
    assert route.stored() == leaves


def test_a_put_is_delivered_late_and_twice(route: Route) -> None:
    """The first try is reset and stored after the second one, unless its condition forbids that."""
    for key in ("plain", "conditional"):
        route.proxy.add(faults.DeliverLate(seconds=600), method="PUT", key=key)
    with pytest.raises(NETWORK_ERRORS):
        route.put("plain")
    with pytest.raises(NETWORK_ERRORS):
        route.client.put_object(Bucket=route.bucket, Key="conditional", Body=BODY, IfNoneMatch="*")
    for key in ("plain", "conditional"):
        assert route.stored(key) is None
        route.put(key, b"second")
    route.proxy.up()
    wait_for(lambda: route.stored("plain") == BODY)
    assert route.stored("conditional") == b"second"


@pytest.mark.parametrize(
    ("fault", "leaves"),
    [(faults.Swallow(), None), (faults.StoreHalf(), BODY[: len(BODY) // 2]), (faults.StoreFlipped(), flipped(BODY))],
)
def test_lies(route: Route, fault: faults.Fault, leaves: bytes | None) -> None:
    """A put is answered with 200 and the right ETag although the object is missing, half there or changed."""
    route.proxy.add(fault, method="PUT")
    assert route.put() == 200
    assert route.stored() == leaves


def test_damaged_reads(route: Route) -> None:
    """A read is cut short, or whole with one bit changed."""
    route.put()
    route.proxy.add(faults.Truncate(0.5), method="GET")
    route.proxy.add(faults.Flip(), method="GET", times=None)
    with pytest.raises(NETWORK_ERRORS):
        route.get()
    assert sum(a != b for a, b in zip(route.get(), BODY, strict=True)) == 1


def test_a_damaged_read_does_not_undo_damage(route: Route) -> None:
    """A body stored with a flipped bit is read with two, because the same bit twice would look good."""
    route.proxy.add(faults.StoreFlipped(), method="PUT")
    route.proxy.add(faults.Flip(), method="GET")
    route.put()
    assert BODY not in (route.get(), route.get())


def test_outage_and_return(route: Route) -> None:
    """Down and blackholed, nothing passes; up again, all passes."""
    hasty = route.proxy.client(config=Config(retries={"total_max_attempts": 1}, read_timeout=1))
    for outage in (route.proxy.down, route.proxy.blackhole):
        outage()
        with pytest.raises(NETWORK_ERRORS):
            hasty.put_object(Bucket=route.bucket, Key="key", Body=BODY)
        assert route.stored() is None
        route.proxy.up()
        route.client.list_objects_v2(Bucket=route.bucket)


def test_killed_server_resets_the_client(own_s3_pair: S3Pair) -> None:
    """With the server gone the client's connection breaks; with the server back it works."""
    server = own_s3_pair.r2
    bucket = server.fresh_bucket()
    with FaultProxy(server) as proxy:
        client = proxy.client(config=Config(retries={"total_max_attempts": 1}))
        client.list_objects_v2(Bucket=bucket)
        server.kill()
        with pytest.raises(NETWORK_ERRORS):
            client.list_objects_v2(Bucket=bucket)
        server.start()
        client.list_objects_v2(Bucket=bucket)


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; the test's own timeout ends a wait for what never comes."""
    while not is_so():
        time.sleep(0.05)
