"""The contract over real S3 servers: SeaweedFS over HTTPS as r2, and with versions as b2."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.ports import LOOPBACK, free_port
from testbed.s3_pair import S3Pair
from testbed.seaweed import SeaweedServer
from wal_pipeline.errors import ObjectLockedError, StoreAccessError, StoreUnavailableError
from wal_pipeline.stores.base import PutOutcome, Store
from wal_pipeline.stores.s3.client import Connection
from wal_pipeline.stores.s3.profiles import B2, PROFILES, R2
from wal_pipeline.stores.s3.store import S3Store, open_s3_store
from wal_pipeline_tests.support.s3_connection import connect
from wal_pipeline_tests.support.store_contract import StoreContract, body, keys, race, read

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stores(s3_pair: S3Pair) -> dict[str, S3Store]:
    """One store of each profile on one bucket each, for the whole module."""
    buckets = s3_pair.fresh_buckets("contract")
    return {"r2": connect(R2, s3_pair.r2, buckets.r2), "b2": connect(B2, s3_pair.b2, buckets.b2)}


@pytest.fixture(params=["r2", "b2"])
def store(request: pytest.FixtureRequest, stores: dict[str, S3Store]) -> S3Store:
    """Each store in turn."""
    return stores[request.param]


@pytest.fixture
def server(store: S3Store, s3_pair: S3Pair) -> SeaweedServer:
    """The server behind ``store``."""
    return s3_pair.r2 if store.name == "r2" else s3_pair.b2


class TestS3Store(StoreContract):
    """The contract over both."""

    # SeaweedFS walks folders, so that 'b/c' comes before 'b-', and starts after a key in that order too. R2 and B2
    # order by bytes.
    names = ("a", "a-b", "a.gz", "b/c", "b0", "b/a/z", "c", "z")

    @pytest.fixture
    def bucketless_store(self, store: S3Store, server: SeaweedServer) -> Store:
        """A bucket that nobody made."""
        return connect(store.profile, server, "no-such-bucket")


def test_a_missing_bucket_names_itself(store: S3Store, server: SeaweedServer) -> None:
    """The message says which bucket and where, and which settings to look at."""
    with pytest.raises(Exception, match="does not exist") as raised:
        connect(store.profile, server, "no-such-bucket").head("a")
    name = store.name
    assert str(raised.value) == (
        f"{name}: bucket 'no-such-bucket' does not exist at '{server.endpoint_url}'\n"
        f"HINT: Create it, or correct {name.upper()}_BUCKET_NAME and {name.upper()}_ENDPOINT_URL."
    )


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_wrong_credentials_are_refused_access_and_never_shown(
    store: S3Store, server: SeaweedServer, wrong: str
) -> None:
    """For every call, also for a HEAD, whose answer has no text; neither key stands in the error."""
    other = connect(store.profile, server, "contract", **{wrong: "AKIAWRONGWRONGWRONG"})
    for call in (
        other.check_access,
        lambda: other.head("a"),
        lambda: other.put_if_absent("a", body(), {}),
        lambda: other.open("a"),
        lambda: list(other.list("")),
        lambda: other.delete("a"),
        lambda: other.begin_upload("a", {}),
    ):
        with pytest.raises(StoreAccessError) as raised:
            call()
        text = str(raised.value) + repr(raised.value) + repr(other)
        assert "AKIAWRONG" not in text
        assert server.access_key_id not in text
        assert server.secret_access_key not in text
        assert raised.value.hint is not None
        assert raised.value.hint.startswith(f"Check {store.name.upper()}_ACCESS_KEY_ID and ")


def test_an_endpoint_that_is_down_is_unavailable(store: S3Store, server: SeaweedServer) -> None:
    """The message names the address."""
    url = f"https://{LOOPBACK}:{free_port()}"
    other = connect(store.profile, server, "contract", endpoint_url=url)
    with pytest.raises(StoreUnavailableError) as raised:
        other.head("a")
    assert str(raised.value) == (
        f"{store.name}: cannot look at object 'a': '{url}' cannot be reached\n"
        f"HINT: Check the network, {store.name.upper()}_ENDPOINT_URL and, where a proxy is needed, HTTPS_PROXY in the "
        "settings file; the call is tried again later."
    )


def test_a_server_that_is_not_trusted_is_not_spoken_to(store: S3Store, server: SeaweedServer) -> None:
    """Without the CA bundle its certificate proves nothing."""
    connection = Connection(
        store=store.name,
        bucket="contract",
        access_key_id="x",
        secret_access_key="y",
        endpoint_url=server.endpoint_url,
        region="auto",
        ca_bundle=None,
        concurrency=1,
        max_attempts=1,
    )
    other = open_s3_store(store.profile, connection)
    with pytest.raises(StoreUnavailableError) as raised:
        other.head("a")
    assert raised.value.message == (
        f"{store.name}: cannot look at object 'a': '{server.endpoint_url}' does not prove who it is"
    )


def test_list_goes_past_a_page_in_order(s3_pair: S3Pair) -> None:
    """1,003 objects are two pages on each store, and ``start_after`` lands inside the second."""
    for profile, server in ((R2, s3_pair.r2), (B2, s3_pair.b2)):
        bucket = server.fresh_bucket("pages", versioning=profile is B2)
        # The put is not what is tested here: the conditional one is one request.
        quick = connect(R2, server, bucket)
        expected = [f"p/{number:04d}" for number in range(1003)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key, to=quick: to.put_if_absent(key, body(b"x"), {}), expected))
        listed = connect(profile, server, bucket)
        assert keys(listed, "p/") == expected
        assert keys(listed, "p/", "p/0998") == expected[999:]
        assert [version.key for version in listed.versions("p/")] == expected
        assert [version.key for version in listed.versions("p/", start_after="p/0998")] == expected[999:]
        server.remove_bucket(bucket)


def test_delete_removes_every_version_and_marker(stores: dict[str, S3Store], s3_pair: S3Pair) -> None:
    """Versions that others wrote or hid are billed until they are removed; other keys that begin alike stay."""
    store, client = stores["b2"], s3_pair.b2.client()
    bucket = s3_pair.b2.fresh_bucket("versions", versioning=True)
    store = connect(B2, s3_pair.b2, bucket)
    for content in (b"1", b"2", b"3"):
        client.put_object(Bucket=bucket, Key="a", Body=content)
    client.delete_object(Bucket=bucket, Key="a")
    client.put_object(Bucket=bucket, Key="a.gz", Body=b"neighbour")
    assert store.head("a") is None
    assert [(found.key, found.is_delete_marker) for found in store.versions("")] == [
        ("a", True),
        ("a", False),
        ("a", False),
        ("a", False),
        ("a.gz", False),
    ]
    assert store.delete("a") == 4
    assert [found.key for found in store.versions("")] == ["a.gz"]


def test_a_hidden_key_can_be_put_again(s3_pair: S3Pair) -> None:
    """A version below a delete marker is not there: it must not win over the new one."""
    bucket = s3_pair.b2.fresh_bucket("hidden", versioning=True)
    client, store = s3_pair.b2.client(), connect(B2, s3_pair.b2, bucket)
    client.put_object(Bucket=bucket, Key="a", Body=b"hidden")
    client.delete_object(Bucket=bucket, Key="a")
    assert store.put_if_absent("a", body(b"new"), {}) is PutOutcome.CREATED
    assert read(store, "a") == b"new"


def test_a_locked_object_says_that_it_is_locked(s3_pair: S3Pair) -> None:
    """It is not an access problem, and it is not tried for ever."""
    bucket = s3_pair.b2.fresh_bucket("locked", versioning=True, object_lock=True)
    store = connect(B2, s3_pair.b2, bucket)
    store.put_if_absent("a", body(), {})
    client = s3_pair.b2.client()
    client.put_object_legal_hold(Bucket=bucket, Key="a", LegalHold={"Status": "ON"})
    with pytest.raises(ObjectLockedError) as raised:
        store.delete("a")
    assert raised.value.message == "b2: object 'a' is locked and may not be deleted (it is under a legal hold)"
    client.put_object_legal_hold(Bucket=bucket, Key="a", LegalHold={"Status": "OFF"})
    assert store.delete("a") == 1


def test_two_archivers_that_put_the_same_key_at_once_agree(s3_pair: S3Pair) -> None:
    """Without conditional puts too: two stores that know nothing of each other leave one version, its maker's."""
    bucket = s3_pair.b2.fresh_bucket("race", versioning=True)
    one, other = connect(B2, s3_pair.b2, bucket), connect(B2, s3_pair.b2, bucket)
    outcomes = race([lambda: one.put_if_absent("a", body(b"1"), {}), lambda: other.put_if_absent("a", body(b"2"), {})])
    assert sorted(outcomes) == [PutOutcome.CREATED, PutOutcome.EXISTS]
    assert read(one, "a") == (b"1", b"2")[outcomes.index(PutOutcome.CREATED)]
    assert len(list(one.versions(""))) == 1


def test_a_damaged_copy_shows_in_its_etag(s3_pair: S3Pair, stores: dict[str, S3Store]) -> None:
    """Other bytes under the key have another ETag than was recorded."""
    store = stores["r2"]
    store.put_if_absent("damage", body(b"good"), {})
    bucket = store._client.connection.bucket
    s3_pair.r2.client().put_object(Bucket=bucket, Key="damage", Body=b"baad")
    found = store.head("damage")
    assert found is not None
    assert found.etag != body(b"good").md5.hex()


def test_the_meter_counts_requests_and_bytes(stores: dict[str, S3Store]) -> None:
    """A put and a read of 1,000 bytes on a store with conditional puts are one request each."""
    store = stores["r2"]
    before = store.meter.totals()
    store.put_if_absent("metered", body(b"x" * 1000), {})
    read(store, "metered")
    after = store.meter.totals()
    assert {name: after.requests[name] - before.requests.get(name, 0) for name in ("put_object", "get_object")} == {
        "put_object": 1,
        "get_object": 1,
    }
    assert (after.sent_bytes - before.sent_bytes, after.received_bytes - before.received_bytes) == (1000, 1000)
    assert set(PROFILES) == {"r2", "b2"}


def test_an_object_is_described_and_read_in_one_request(stores: dict[str, S3Store]) -> None:
    """Each request costs the way there and back, which is what bounds a fetch from far away."""
    store = stores["r2"]
    store.put_if_absent("described", body(b"x" * 1000), {})
    before = store.meter.totals().requests
    with store.open_described("described") as (described, stream):
        assert len(stream.read()) == described.size_bytes
    after = store.meter.totals().requests
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)} == {
        "get_object": 1
    }


def test_a_bucket_with_versions_under_a_store_without_does_not_keep_hidden_bytes(s3_pair: S3Pair) -> None:
    """MinIO or AWS S3 under the name r2: a delete said "removed it", and the version stayed and was billed."""
    bucket = s3_pair.fresh_buckets("versions").b2
    store = connect(R2, s3_pair.b2, bucket)
    assert not store.keeps_versions
    for key in ("a", "b"):
        store.put_if_absent(key, body(b"bytes"), {})
    assert store.delete("a") == 2  # the version, and the marker that the delete itself made
    assert store.keeps_versions
    assert store.delete("b") == 1
    assert list(connect(B2, s3_pair.b2, bucket).versions("")) == []


def test_a_lock_under_a_store_without_versions_is_told(s3_pair: S3Pair) -> None:
    """The bytes stay, and nobody is to believe that the room is free."""
    bucket = s3_pair.b2.fresh_bucket("lockedr2", versioning=True, object_lock=True)
    store = connect(R2, s3_pair.b2, bucket)
    store.put_if_absent("a", body(b"bytes"), {})
    client = s3_pair.b2.client()
    client.put_object_legal_hold(Bucket=bucket, Key="a", LegalHold={"Status": "ON"})
    with pytest.raises(ObjectLockedError, match="r2: object 'a' is locked and may not be deleted"):
        store.delete("a")
    client.put_object_legal_hold(
        Bucket=bucket,
        Key="a",
        VersionId=next(one.version_id for one in store.versions("a") if not one.is_delete_marker),
        LegalHold={"Status": "OFF"},
    )
    store.delete("a")
    assert list(store.versions("")) == []
