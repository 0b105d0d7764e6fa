"""Connects to a test's S3 server."""

from testbed.seaweed import SeaweedServer
from wal_pipeline.stores.s3.client import Connection
from wal_pipeline.stores.s3.profiles import StoreProfile
from wal_pipeline.stores.s3.store import S3Store, open_s3_store


def connect(profile: StoreProfile, server: SeaweedServer, bucket: str, **changes: str) -> S3Store:
    """Open a bucket of a server; ``changes`` replace settings."""
    settings = {
        "store": profile.name,
        "bucket": bucket,
        "access_key_id": server.access_key_id,
        "secret_access_key": server.secret_access_key,
        "endpoint_url": server.endpoint_url,
        "region": "us-east-005",
    }
    connection = Connection(ca_bundle=server.ca_bundle, concurrency=8, max_attempts=2, **(settings | changes))
    return open_s3_store(profile, connection)
