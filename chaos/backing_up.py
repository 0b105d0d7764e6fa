"""Takes base backups among the faults: each must succeed, or end with an error that a person can read.

One that was called restorable is whole on the store, also where it stood still for days while others cleaned up.
"""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from chaos.checks import poke
from chaos.schedule import LYING
from chaos.whole_backups import TakenBackup, not_whole, together
from chaos.world import World
from testbed.dagster_instance import PROJECT, clean_environment
from testbed.processes import ChildProcess

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_END_SECONDS = 240.0
_USAGE_OR_FAILURE = (1, 2)
_FIRST_OBJECT_SECONDS = 15.0
_AHEAD_SECONDS = 3 * 86400  # more than the age at which a base backup, and an expiry, removes leftovers


class Backups:
    """The base backups of one schedule, each a ``wal-pipeline backup`` of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: list[ChildProcess] = []
        self._killed: set[str] = set()
        self._stopped: list[ChildProcess] = []
        self._cleaning: list[ChildProcess] = []
        self._expiries: set[str] = set()
        self._leases_kept = True

    def begin(self) -> ChildProcess:
        """Start a base backup by the schedule's next method, and return its process."""
        method, is_incremental = self._method()
        words = ("--incremental",) if is_incremental else ()
        return self._started(
            "wal_pipeline.cli", "backup", "--json", *words, **self._world.schedule.backup_settings(method)
        )

    def _method(self) -> tuple[str, bool]:
        methods = self._world.schedule.methods
        return methods[(1 + len(self._running)) % len(methods)]

    def stall(self, *, lose_lease: bool) -> None:
        """Stop a base backup in its midst until all else is over, and let others clean up meanwhile, days later.

        The days are imitated by the clock of the others. With ``lose_lease`` its leases are removed too, as they are
        where the store did not answer for so long; then another base backup begins and cleans up, else an expiry.
        """
        before = {key for _, _, key in self._keys("/base/")}
        child = self.begin()
        deadline = time.monotonic() + _FIRST_OBJECT_SECONDS
        while child.is_running and time.monotonic() < deadline and not self._has_more(before):
            time.sleep(0.05)
        child.send_signal(signal.SIGSTOP)
        self._stopped.append(child)
        if lose_lease:
            self._leases_kept = False
            self._remove_leases()
        offset_file = self._world.folder / "days-later"
        offset_file.write_text(str(_AHEAD_SECONDS))
        words = ("backup", "--json") if lose_lease else ("expire", "--confirm")
        cleaning = self._started("chaos.stepped_command", str(offset_file), *words)
        self._cleaning.append(cleaning)
        if not lose_lease:
            self._expiries.add(cleaning.name)

    def _started(self, module: str, *words: str, **settings: str) -> ChildProcess:
        name = f"backup-{len(self._running) + 1}"
        child = ChildProcess(
            name,
            (sys.executable, "-m", module, *words),
            log=self._world.folder / f"{name}.log",
            env={**clean_environment(), **self._world.environment, **settings},
            cwd=PROJECT,
        )
        child.start()
        self._running.append(child)
        return child

    def _has_more(self, before: set[str]) -> bool:
        return any(key not in before for _, _, key in self._keys("/base/"))

    def _remove_leases(self) -> None:
        for client, bucket, key in list(self._keys("/lease/")):
            client.delete_object(Bucket=bucket, Key=key)

    def _keys(self, part: str) -> Iterator[tuple["S3Client", str, str]]:
        """Yield the keys with a part on the servers behind the proxies; one that is down has none."""
        stage = self._world.stage
        for server, bucket in ((stage.pair.r2, stage.buckets.r2), (stage.pair.b2, stage.buckets.b2)):
            with contextlib.suppress(BotoCoreError, ClientError):
                found = [key for key in server.keys(bucket, f"{self._world.prefix}/") if part in key]
                yield from ((server.client(), bucket, key) for key in found)

    def kill(self, child: ChildProcess) -> None:
        """SIGKILL a base backup, which may have ended."""
        if child.is_running:
            self._killed.add(child.name)
            child.kill()

    def die(self) -> None:
        """SIGKILL all that still run, as the loss of their host does."""
        for child in self._running:
            self.kill(child)

    @property
    def taken(self) -> int:
        """The number of base backups that succeeded."""
        return sum(child.returncode == 0 and child.name not in self._expiries for child in self._running)

    def settle(self) -> list[str]:
        """Wait until all have ended, and return each wrong ending as a text."""
        self._await(self._cleaning)
        for child in self._stopped:
            child.send_signal(signal.SIGCONT)
        self._await(self._running)
        return [text for child in self._running if (text := self._fault(child)) is not None]

    def may_be_gone(self, name: str, first_segment: str) -> bool:
        """Whether an expiry may have removed a segment: it comes before the begin of the oldest base backup."""
        return bool(self._expiries) and len(name) == len(first_segment) and name[8:] < first_segment[8:]

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with base backups that were called restorable, once all have ended."""
        summaries = ((child.name, _summary(child)) for child in self._running)
        taken = [TakenBackup.parse(name, found) for name, found in summaries if found is not None]
        yield from not_whole(self._world, taken)
        if self._leases_kept and not any(event.kind in LYING for event in self._world.schedule.events):
            yield from together(self._world, taken)

    def _await(self, children: list[ChildProcess]) -> None:
        deadline = time.monotonic() + _END_SECONDS
        while any(child.is_running for child in children) and time.monotonic() < deadline:
            poke(self._world)
            time.sleep(1)

    def stop(self) -> None:
        """End the base backups that still run."""
        for child in self._running:
            child.kill()

    def _fault(self, child: ChildProcess) -> str | None:
        if child.is_running:
            return f"'{child.name}' did not end:\n{child.log_tail()}"
        if child.returncode == 0 or child.name in self._killed:
            return None
        said = child.log_tail(200)
        told = "ERROR: " in said or child.name in self._expiries
        if child.returncode not in _USAGE_OR_FAILURE or "Traceback" in said or not told:
            return f"'{child.name}' ended with {child.returncode}:\n{said}"
        return None


def _summary(child: ChildProcess) -> dict[str, Any] | None:
    """Return what a base backup says of itself in its last line of JSON; None where it stored nothing."""
    lines = [line for line in child.log_tail(200).splitlines() if line.startswith('{"backup_id"')]
    return cast(dict[str, Any], json.loads(lines[-1])) if lines else None
