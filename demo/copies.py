"""Proves copies without the program: downloads, gunzips, hashes and compares with PostgreSQL's own file."""

from collections.abc import Collection

from demo.folder import DemoError
from demo.scene import BUCKETS, Scene
from testbed.stored_wal import StoredWal, WrongCopyError


def verified_copies(scene: Scene, names: Collection[str]) -> dict[str, int]:
    """Return how many of these segments each store holds with exactly PostgreSQL's bytes.

    Raises: DemoError for the first copy that is missing or is not what PostgreSQL wrote.
    """
    pg_wal = scene.cluster.pgdata / "pg_wal"
    try:
        return {
            server.name: StoredWal.list(server, bucket).verify(pg_wal, names)
            for server, bucket in ((scene.stores.r2, BUCKETS.r2), (scene.stores.b2, BUCKETS.b2))
        }
    except WrongCopyError as error:
        raise DemoError(str(error)) from error
