"""Look at the copies without the program: download with boto3, open with gzip, hash, compare with PostgreSQL's file."""

import gzip
import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.folder import DemoError
from demo.scene import BUCKETS, Scene
from wal_pipeline_tests.support.seaweed import SeaweedServer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_THREADS = 2


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """One store's objects of the WAL archive, by the names of the files."""

    server: SeaweedServer
    bucket: str
    keys: dict[str, str]


def verified_copies(scene: Scene, names: Collection[str]) -> dict[str, int]:
    """Return for each store how many of these files it holds with exactly PostgreSQL's bytes.

    Raises: DemoError for the first copy that is missing or is not what PostgreSQL wrote.
    """
    return {
        "r2": _verify_store(_list(scene.stores.r2, BUCKETS.r2), scene.cluster.pgdata, names),
        "b2": _verify_store(_list(scene.stores.b2, BUCKETS.b2), scene.cluster.pgdata, names),
    }


def _list(server: SeaweedServer, bucket: str) -> StoredFiles:
    keys = {key.rpartition("/")[2].removesuffix(".gz"): key for key in server.keys(bucket) if "/wal/" in key}
    return StoredFiles(server, bucket, keys)


def _verify_store(stored: StoredFiles, pgdata: Path, names: Collection[str]) -> int:
    client = stored.server.client()
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(lambda name: _verify(client, stored, name, pgdata), sorted(names)))


def _verify(client: "S3Client", stored: StoredFiles, name: str, pgdata: Path) -> int:
    store = stored.server.name
    if name not in stored.keys:
        raise DemoError(f"{store}: there is no object for '{name}'")
    body = client.get_object(Bucket=stored.bucket, Key=stored.keys[name])["Body"].read()
    found = hashlib.sha256(gzip.decompress(body)).hexdigest()
    expected = hashlib.sha256((pgdata / "pg_wal" / name).read_bytes()).hexdigest()
    if found != expected:
        raise DemoError(f"{store}: '{name}' opens to SHA-256 {found}, PostgreSQL's file has {expected}")
    return 1
