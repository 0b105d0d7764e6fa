"""Tests that the test bed's S3 server is strict, keeps its data and knows versions."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from testbed import seaweed
from testbed.processes import ServerError
from testbed.s3_pair import S3Buckets, S3Pair
from testbed.seaweed import SeaweedServer, weed_program

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


def test_a_server_that_ends_while_it_starts_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose first start fails (a port is taken for a moment) runs at the second; not for ever."""
    program, starts = tmp_path / "weed", tmp_path / "starts"
    program.write_text(
        "#!/bin/sh\n"
        f"echo start >> {starts}\n"
        f"[ $(wc -l < {starts}) -ge $FIRST_GOOD ] || {{ echo no port; exit 1; }}\n"
        f'exec {weed_program()} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(seaweed, "weed_program", lambda: str(program))
    monkeypatch.setenv("FIRST_GOOD", "4")
    with pytest.raises(ServerError, match="ended with 1 while starting:\nno port"):
        SeaweedServer(tmp_path / "never").start()
    assert starts.read_text() == "start\n" * 3
    starts.write_text("")
    monkeypatch.setenv("FIRST_GOOD", "2")
    server = SeaweedServer(tmp_path / "server")
    endpoint_url = server.endpoint_url
    with server:
        assert (server.endpoint_url, starts.read_text()) == (endpoint_url, "start\n" * 2)
