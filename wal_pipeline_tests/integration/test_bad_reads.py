"""Tests that a bad read never costs a good copy, and that a copy damaged in the store is replaced."""

from collections.abc import Iterator

import pytest

from testbed.fault_proxy import FaultProxy
from testbed.faults import Answer, Fault, Flip, StoreFlipped
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.tls import TlsFiles
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.copies.put import store_copy
from wal_pipeline.errors import DamagedCopyError
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.s3.store import S3Store
from wal_pipeline_tests.support.base_backup_scene import s3_store
from wal_pipeline_tests.support.restore_archive import LAYOUT, describe_file, name_of, segment_bytes

pytestmark = pytest.mark.integration

NAME = "000000010000000000000001"
DATA = segment_bytes(NAME)
FILE = describe_file(NAME, DATA)
ENCODED = Encoder(Codec.ZSTD).encode(DATA)
KEY = LAYOUT.wal_key(name_of(NAME), Codec.ZSTD, encrypted=False)
PATH = f"/{KEY}"  # not in a listing, which has the key as its prefix


@pytest.fixture(scope="module")
def proxies(s3_pair: S3Pair, tls_files: TlsFiles) -> Iterator[dict[str, FaultProxy]]:
    """A proxy before each server."""
    with FaultProxy(s3_pair.r2, tls=tls_files) as r2, FaultProxy(s3_pair.b2, tls=tls_files) as b2:
        yield {"r2": r2, "b2": b2}


@pytest.fixture(params=["r2", "b2"])
def proxy(request: pytest.FixtureRequest, proxies: dict[str, FaultProxy]) -> Iterator[FaultProxy]:
    """The proxy of each store in turn."""
    chosen = proxies[request.param]
    yield chosen
    chosen.clear()
    chosen.forget()


@pytest.fixture
def store(proxy: FaultProxy, s3_pair: S3Pair, s3_buckets: S3Buckets) -> S3Store:
    """The store behind the proxy, with an empty bucket."""
    return s3_store(s3_pair, s3_buckets, proxy.upstream.name, endpoint_url=proxy.endpoint_url)


def put(store: S3Store, *, found: str | None = None) -> str:
    return store_copy(ClusterStore(store, LAYOUT), FILE, ENCODED, read_back=True, found=found)[0]


def stored(store: S3Store) -> bytes:
    with store.open(KEY) as stream:
        return stream.read()


@pytest.mark.parametrize(
    ("fault", "method"), [(Flip(), "GET"), (Answer(404, "NoSuchKey"), "HEAD"), (Answer(404, "NoSuchKey"), "GET")]
)
def test_one_bad_look_costs_no_copy(store: S3Store, proxy: FaultProxy, fault: Fault, method: str) -> None:
    """A copy is read a second time and adopted; nothing is deleted or stored."""
    assert put(store) == KEY
    proxy.forget()
    rule = proxy.add(fault, method=method, key=PATH)
    assert put(store, found=KEY) == KEY
    assert rule.hits == 1
    assert proxy.counts.keys() <= {"GET", "HEAD"}
    assert stored(store) == ENCODED.body.data


@pytest.mark.parametrize("fault", [Flip(), Answer(404, "NoSuchKey")])
def test_one_bad_read_back_costs_no_put(store: S3Store, proxy: FaultProxy, fault: Fault) -> None:
    """A copy that was just stored is read a second time before it is replaced."""
    rule = proxy.add(fault, method="GET", key=PATH)
    assert put(store) == KEY
    assert rule.hits == 1
    assert (proxy.counts["PUT"], proxy.counts["DELETE"]) == (1, 0)


def test_bytes_that_are_wrong_in_the_store_are_replaced(store: S3Store, proxy: FaultProxy) -> None:
    """Where both reads find damage, the copy is removed and stored again, and is good."""
    damaged = proxy.add(StoreFlipped(), method="PUT", key=PATH)
    assert put(store) == KEY
    assert damaged.hits == 1
    assert (proxy.counts["PUT"], proxy.counts["DELETE"]) == (2, 1)
    assert stored(store) == ENCODED.body.data


def test_a_store_that_always_damages_is_told(store: S3Store, proxy: FaultProxy) -> None:
    """Where the second copy is damaged too, the error says so and the file does not count as stored."""
    proxy.add(StoreFlipped(), method="PUT", key=PATH, times=None)
    with pytest.raises(DamagedCopyError) as raised:
        put(store)
    assert raised.value.message.startswith(f"{store.name}: object '{KEY}' has SHA-256 ")
    assert raised.value.message.endswith(f", expected {ENCODED.encoding.sha256}")
