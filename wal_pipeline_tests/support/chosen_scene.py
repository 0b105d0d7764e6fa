"""Restores only some databases of an original that runs beside, and looks at the copy."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.ports import free_port
from testbed.postgres_install import postgres_user
from wal_pipeline_tests.support.beside_scene import Beside


@dataclass(slots=True)
class Copy:
    """A restored copy: what the restore answered, and the server at its port."""

    scene: Beside
    pgdata: Path
    port: int
    done: "subprocess.CompletedProcess[str]" = field(init=False)

    @property
    def answer(self) -> dict[str, Any]:
        """The restore's JSON."""
        found: dict[str, Any] = json.loads(self.done.stdout.splitlines()[-1])
        return found

    @property
    def log(self) -> str:
        """The server's log while it recovered."""
        return self.pgdata.with_name(f"{self.pgdata.name}-recovery.log").read_text(errors="replace")

    def psql(self, database: str, sql: str) -> str:
        """Return a query's answer."""
        words = ["--no-psqlrc", "-At", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        return self.scene.cluster.run("psql", *words, "-c", sql).strip()

    def refusal(self, database: str) -> str:
        """Return why the server lets nobody connect to a database."""
        words = ["psql", "--no-psqlrc", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        program = str(self.scene.install.program(words[0]))
        done = subprocess.run(
            [program, *words[1:], "-c", "SELECT 1"], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stderr

    def start(self, **settings: str) -> None:
        """Start it as a person does. Without hot standby, nobody is told when its recovery ends."""
        given = {"port": str(self.port), "listen_addresses": "127.0.0.1", **settings}
        options = " ".join(f"-c {name}={value}" for name, value in given.items())
        log = self.pgdata.with_name(f"{self.pgdata.name}-recovery.log")
        run_as_postgres(
            [
                *(str(self.scene.install.program("pg_ctl")), "start", "--wait", "-D", str(self.pgdata)),
                *("-o", options, "-l", str(log)),
            ],
            self.scene.settings,
        )

    def wait_for_log(self, words: str) -> None:
        """Wait until the server's log has these words."""
        self._wait(lambda: words in self.log, words)

    def wait_until_gone(self) -> None:
        """Wait until the server has ended."""
        self._wait(lambda: not (self.pgdata / "postmaster.pid").exists(), "the end of the server")

    def _wait(self, seen: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not seen():
            assert time.monotonic() < deadline, f"{what}: {self.log[-4000:]}"
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it. No error where it does not run."""
        if (self.pgdata / "postmaster.pid").exists():
            self.scene.cluster.run("pg_ctl", "stop", "--mode=immediate", "-D", str(self.pgdata))


@dataclass(frozen=True, slots=True)
class ChosenScene:
    """An original, of which only some databases are restored."""

    beside: Beside

    def run(self, name: str, *words: str) -> Copy:
        """Restore into a folder of this name, beside the original, and its tablespaces beside that."""
        scene = self.beside
        copy = Copy(scene, scene.folder / name, free_port())
        spaces = scene.cluster.psql("SELECT oid FROM pg_tablespace WHERE oid >= 16384").split()
        given = ("--json", *(f"--tablespace-map={oid}={scene.folder}/{name}-{oid}" for oid in spaces))
        start = (f"--set=port={copy.port}", "--set=listen_addresses=127.0.0.1") if "--start" in words else ()
        copy.done = scene.restore(name, *given, *start, *words, timeout_seconds=240)
        return copy

    @contextmanager
    def restored(self, name: str, *words: str) -> Iterator[Copy]:
        """Restore, and stop the server at the end."""
        copy = self.run(name, *words)
        try:
            yield copy
        finally:
            copy.stop()

    @contextmanager
    def without_lists(self) -> Iterator[None]:
        """Take the lists of relations out of the store for the block."""
        folders = [path for path in (self.beside.folder / "store").rglob("relations") if path.is_dir()]
        assert folders
        for path in folders:
            path.rename(path.with_name("relations-away"))
        try:
            yield
        finally:
            for path in folders:
                path.with_name("relations-away").rename(path)


def run_as_postgres(command: list[str], settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command as PostgreSQL's user, with the program's settings."""
    return subprocess.run(
        postgres_user().wrap(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd="/",
        env={"PATH": os.environ["PATH"], **settings},
    )
