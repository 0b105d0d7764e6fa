"""Tests that the cost of shipping counts the requests that a piece really costs on a real S3 server."""

import hashlib

import pytest

from testbed.s3_pair import S3Pair
from wal_pipeline.archive.cost import shipping_usage
from wal_pipeline.archive.format.keys import Layout
from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.commands.cost.request_counts import counts_of
from wal_pipeline.commands.ship.put_piece import put_piece
from wal_pipeline.settings import load_settings
from wal_pipeline.stores.cluster_store import ClusterStore
from wal_pipeline.stores.request_meter import RequestMeter
from wal_pipeline.wiring.pipeline import Pipeline
from wal_pipeline_tests.support.clock import TestClock
from wal_pipeline_tests.support.pieces import cut

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("read_back", [True, False])
def test_a_piece_on_r2_is_one_request_of_each_class(s3_pair: S3Pair, read_back: bool) -> None:
    """A month of pieces, every five seconds, is that often these requests, and a fifteenth more for merged ones."""
    buckets = s3_pair.fresh_buckets()
    environment = {**s3_pair.store_environment(buckets), "WAL_PIPELINE_CA_BUNDLE": str(s3_pair.r2.ca_bundle)}
    store = Pipeline(load_settings(environment)).stores["r2"]
    meter = getattr(store, "meter", None)
    assert isinstance(meter, RequestMeter)
    data = hashlib.sha256(b"wal").digest() * 1024
    pieces = cut("000000010000000000000001", data, [0, 16384, 32768], system_identifier=7, wal_segment_size=1 << 20)
    place, encoder = ClusterStore(store, Layout("", "main", 7)), Encoder(Codec.GZIP)
    put_piece(place, pieces[0], encoder.encode(data[:16384]), read_back=read_back)
    before = counts_of("r2", meter.totals(), TestClock()())
    put_piece(place, pieces[1], encoder.encode(data[16384:]), read_back=read_back)
    after = counts_of("r2", meter.totals(), TestClock()())
    a_piece = after.class_a - before.class_a, after.class_b - before.class_b
    month = 30 * 86_400 // 5
    usage = shipping_usage(5.0)
    assert a_piece[0] * (month + month // 15) == usage.class_a_requests
    assert a_piece[1] * (month + month // 15) == usage.class_b_requests
    s3_pair.remove_buckets(buckets)
