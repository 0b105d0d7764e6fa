"""Tests that the test bed's S3 server is strict, keeps its data and knows versions."""

import pytest
from botocore.exceptions import ClientError

from testbed.s3_pair import S3Buckets, S3Pair

pytestmark = pytest.mark.integration


def test_wrong_md5_is_refused(s3_pair: S3Pair, s3_buckets: S3Buckets) -> None:
    """A put whose Content-MD5 is not that of the body stores nothing."""
    with pytest.raises(ClientError, match="BadDigest"):
        s3_pair.r2.client().put_object(
            Bucket=s3_buckets.r2, Key="key", Body=b"body", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA=="
        )
    assert s3_pair.r2.keys(s3_buckets.r2) == []


def test_wrong_secret_and_missing_bucket_are_refused(s3_pair: S3Pair, s3_buckets: S3Buckets) -> None:
    """A wrong key opens no bucket, and a put makes none."""
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3_pair.r2.client(secret_access_key="wrong").list_objects_v2(Bucket=s3_buckets.r2)
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3_pair.r2.client().put_object(Bucket="no-such-bucket", Key="key", Body=b"")


def test_only_b2_keeps_versions(s3_pair: S3Pair, s3_buckets: S3Buckets) -> None:
    """Two puts and a delete leave two versions and a delete marker on b2 and nothing on r2."""
    found = []
    for server, bucket in ((s3_pair.r2, s3_buckets.r2), (s3_pair.b2, s3_buckets.b2)):
        client = server.client()
        client.put_object(Bucket=bucket, Key="key", Body=b"one")
        client.put_object(Bucket=bucket, Key="key", Body=b"two")
        client.delete_object(Bucket=bucket, Key="key")
        answer = client.list_object_versions(Bucket=bucket)
        found.append((len(answer.get("Versions", [])), len(answer.get("DeleteMarkers", []))))
    assert found == [(0, 0), (2, 1)]


def test_data_outlives_sigkill_and_stop(own_s3_pair: S3Pair) -> None:
    """An object that was stored is there after a SIGKILL and after a stop, at the same address."""
    server = own_s3_pair.r2
    bucket, endpoint_url = server.fresh_bucket(), server.endpoint_url
    server.client().put_object(Bucket=bucket, Key="key", Body=b"body" * 100_000)
    server.kill()
    server.start()
    assert server.read(bucket, "key") == b"body" * 100_000
    server.restart()
    assert (server.endpoint_url, server.read(bucket, "key")) == (endpoint_url, b"body" * 100_000)
