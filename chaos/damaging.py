"""Damages a base backup on one store while the retention job runs, and puts it back at the end."""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from chaos.world import World
from testbed.dagster_instance import PROJECT, clean_environment
from testbed.processes import ChildProcess
from testbed.seaweed import SeaweedServer

_END_SECONDS = 120.0
_SEGMENT_NAME = 24
_MANIFEST = "/manifest.json"


@dataclass(frozen=True, slots=True)
class _Harmed:
    """An object as it was, and the process that looked at the store while it was not so."""

    server: SeaweedServer
    bucket: str
    key: str
    content: bytes
    metadata: Mapping[str, str]
    kept: frozenset[str]
    expiry: ChildProcess


@dataclass(slots=True)
class Damage:
    """The damage of one schedule. All of its WAL and base backups are minutes old, so that an expiry removes none."""

    world: World
    _harmed: list[_Harmed] = field(default_factory=list)
    _is_dead: bool = False

    def expire_while_damaged(self, server: SeaweedServer, strength: float) -> None:
        """Flip a bit of the oldest manifest, cut it, or take a volume away; then run ``expire --confirm``.

        Does nothing where the store is down or has no base backup yet.
        """
        buckets = self.world.stage.buckets
        bucket = {"r2": buckets.r2, "b2": buckets.b2}[server.name]
        with contextlib.suppress(BotoCoreError, ClientError):
            keys = server.keys(bucket, f"{self.world.prefix}/")
            manifests = [key for key in keys if key.endswith(_MANIFEST)]
            if manifests and server.is_running and not self._harmed:
                self._harm(server, bucket, keys, manifests[0], strength)

    @property
    def expiries(self) -> int:
        """The number of expiries that met the damage."""
        return len(self._harmed)

    def may_be_gone(self, name: str) -> bool:
        """Whether an expiry may have removed a segment: it comes before the start of the oldest base backup."""
        starts = [harmed.key.split("/")[-2].rpartition("-")[2] for harmed in self._harmed]
        return len(name) == _SEGMENT_NAME and any(name[8:] < start[8:] for start in starts)

    def die(self) -> None:
        """SIGKILL the expiries, as the loss of their host does, and put all back for those who restore elsewhere."""
        self._is_dead = True
        for harmed in self._harmed:
            harmed.expiry.kill()
            _put_back(harmed)

    def settle(self) -> list[str]:
        """Put all back, now that no fault is left, and return each wrong ending and each loss as a text."""
        return [text for harmed in self._harmed for text in self._settle(harmed)]

    def stop(self) -> None:
        """End the expiries that still run."""
        for harmed in self._harmed:
            harmed.expiry.kill()

    def _harm(self, server: SeaweedServer, bucket: str, keys: list[str], manifest: str, strength: float) -> None:
        folder = manifest.removesuffix("manifest.json")
        volumes = [key for key in keys if key.startswith(folder) and key != manifest]
        key = volumes[0] if strength > 2 / 3 and volumes else manifest
        client = server.client()
        answer = client.get_object(Bucket=bucket, Key=key)
        content, metadata = answer["Body"].read(), answer["Metadata"]
        if key != manifest:
            client.delete_object(Bucket=bucket, Key=key)
        else:
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            body = flipped if strength < 1 / 3 else content[:middle]
            client.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata)
        expiry = ChildProcess(
            "expire",
            (sys.executable, "-m", "wal_pipeline.cli", "expire", "--confirm"),
            log=self.world.folder / "expire.log",
            env={**clean_environment(), **self.world.environment},
            cwd=PROJECT,
        )
        kept = frozenset(other for other in keys if "/wal/" in other or other.startswith(folder))
        self._harmed.append(_Harmed(server, bucket, key, content, metadata, kept, expiry))
        expiry.start()

    def _settle(self, harmed: _Harmed) -> list[str]:
        problems = []
        try:
            code = harmed.expiry.wait(timeout_seconds=_END_SECONDS)
        except subprocess.TimeoutExpired:
            problems.append(f"'expire' did not end:\n{harmed.expiry.log_tail()}")
        else:
            said = harmed.expiry.log_tail(200)
            if (code not in (0, 1) and not self._is_dead) or "Traceback" in said:
                problems.append(f"'expire' ended with {code}:\n{said}")
        _put_back(harmed)
        left = set(harmed.server.keys(harmed.bucket, f"{self.world.prefix}/"))
        gone = sorted(harmed.kept - left)
        return problems + [f"{harmed.server.name}: '{key}' was removed by an expiry, minutes old" for key in gone]


def _put_back(harmed: _Harmed) -> None:
    metadata = dict(harmed.metadata)
    harmed.server.client().put_object(Bucket=harmed.bucket, Key=harmed.key, Body=harmed.content, Metadata=metadata)
