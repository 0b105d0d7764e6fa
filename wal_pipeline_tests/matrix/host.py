"""Builds one host: a PostgreSQL cluster in an environment, a spool, the program's settings, and the loss of it all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder, postgres_user
from wal_pipeline_tests.matrix.environments import Environment

_CONFIGURATION = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")
_DISK_SIZE = "2g"


class NoMountPointError(RuntimeError):
    """This process may mount no file system."""


@dataclass(slots=True)
class Host:
    """A cluster that runs in its environment, and our program as its user would run it."""

    environment: Environment
    cluster: PostgresCluster
    folder: Path
    settings_file: Path
    _disks: ExitStack

    @property
    def pgdata(self) -> Path:
        """The data directory; the parent is root's where it is a mount point."""
        return self.cluster.pgdata

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the program as PostgreSQL's user, in a folder and with an environment that say nothing of it.

        The words come in the encoding of the locale, as from a terminal.
        """
        encoding = "ISO-8859-1" if self.environment.locale_name.endswith("ISO-8859-1") else "UTF-8"
        typed = [word.encode(encoding).decode("utf-8", "surrogateescape") for word in words]
        return subprocess.run(
            postgres_user().wrap(
                [sys.executable, "-P", "-m", "wal_pipeline.cli", "--env-file", str(self.settings_file), *typed]
            ),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=240,
            cwd="/",
            env={name: os.environ[name] for name in ("PATH", "LC_ALL", "LOCPATH") if name in os.environ},
        )

    def must(self, *words: str) -> str:
        """Run the program, which must succeed, and return all that it said."""
        done = self.run(*words)
        assert done.returncode == 0, f"{self.environment}: {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def answers(self, *words: str) -> list[dict[str, Any]]:
        """Run the program with ``--json``, which must succeed, and return the objects that it prints, a line each."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, f"{self.environment}: {' '.join(words)}\n{done.stdout}{done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def finish_segment(self) -> None:
        """Finish the current segment and wait until it lies in the spool."""
        name = self.cluster.switch_wal()
        self.cluster.process.wait_until((self.folder / "spool" / name).exists)

    def lose(self) -> None:
        """Crash the server, and put a new and empty disk or folder where the data and the configuration were."""
        self.cluster.kill()
        self._disks.close()
        for name in ("data", "etc", "wal"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.cluster.settings.pop("config_file", None)
        if self.environment.layout == "mount point":
            self._disks.enter_context(_disk(self.pgdata))
        else:
            _give(self.folder / "data")

    def restart(self) -> None:
        """Stop the server that a restore has started, and start it as its own configuration says."""
        self.cluster.run("pg_ctl", "stop", "--mode=fast", "--wait", "--pgdata", str(self.pgdata))
        self.cluster.start()

    def remove(self) -> None:
        """Stop the server, whoever started it, and remove all."""
        if (self.pgdata / "postmaster.pid").exists() and not self.cluster.is_running:
            self.cluster.run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(self.pgdata))
        self.cluster.remove()
        self._disks.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def host(environment: Environment, install: PostgresInstall, settings: Mapping[str, str]) -> Iterator[Host]:
    """Make the cluster and start it. ``settings`` are the stores'. Raises: NoMountPointError.

    The caller has set the umask and the locale of this process, which all programs inherit.
    """
    folder = owned_folder("matrix")
    folder.chmod(0o755)
    with ExitStack() as disks:
        for name in ("data", "spool", "state", "desk"):
            _give(folder / name)
        cluster = PostgresCluster(install, folder, pgdata=folder / "data/main", settings={})
        cluster.settings.clear()
        made = Host(environment, cluster, folder, folder / "settings.env", disks)
        try:
            _lay_out(made)
            _write_settings(made, settings)
            cluster.start()
            yield made
        finally:
            made.remove()


def _lay_out(made: Host) -> None:
    cluster, environment, folder = made.cluster, made.environment, made.folder
    waldir = folder / "wal" if environment.layout == "linked pg_wal" else None
    if environment.layout == "mount point":
        made._disks.enter_context(_disk(made.pgdata, lost_and_found=False))
    cluster.initdb(wal_segment_size_mb=1, encoding=environment.encoding, locale=environment.locale_name, waldir=waldir)
    if environment.layout == "mount point":
        _give(made.pgdata / "lost+found", mode=0o700)
    with (made.pgdata / "postgresql.conf").open("a") as conf:
        conf.write(
            f"datestyle = '{environment.date_style}'\nintervalstyle = 'sql_standard'\ntimezone = 'Asia/Kathmandu'\n"
            f"lc_messages = '{environment.locale_name}'\nmax_connections = 20\nshared_buffers = '32MB'\nfsync = off\n"
            f"listen_addresses = '127.0.0.1'\nport = {cluster.port}\n"
            f"unix_socket_directories = '{cluster.socket_folder}'\n"
        )
    if environment.layout == "Debian":
        etc = folder / "etc/15/main"
        _give(folder / "etc")
        _give(folder / "etc/15")
        _give(etc)
        for name in _CONFIGURATION:
            (made.pgdata / name).rename(etc / name)
        with (etc / "postgresql.conf").open("a") as conf:
            conf.write(
                f"data_directory = '{made.pgdata}'\nhba_file = '{etc}/pg_hba.conf'\n"
                f"ident_file = '{etc}/pg_ident.conf'\nexternal_pid_file = '{folder}/15-main.pid'\n"
            )
        cluster.settings["config_file"] = str(etc / "postgresql.conf")


def _write_settings(made: Host, stores: Mapping[str, str]) -> None:
    settings = {
        "PGDATA": str(made.pgdata),
        "PG_WAL_ARCHIVE_DIR": str(made.folder / "spool"),
        "PGBINDIR": str(made.cluster.install.bin_folder),
        "WAL_PIPELINE_CONNINFO": made.cluster.conninfo,
        "WAL_PIPELINE_STATE_DIR": str(made.folder / "state"),
        "WAL_PIPELINE_DRILL_FOLDER": str(made.folder / "drill"),
        "WAL_PIPELINE_CLONE_FOLDER": str(made.folder / "clones"),
        "WAL_PIPELINE_SETTLE_SECONDS": "0",
        **stores,
        **(_keys(made.folder) if made.environment.secrecy == "age" else {}),
    }
    made.settings_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    made.settings_file.chmod(0o644)


def _keys(folder: Path) -> dict[str, str]:
    """Make an age key that PostgreSQL's user can read, and return the settings that use it."""
    identity, path = pyrage.x25519.Identity.generate(), folder / "identity"
    path.write_text(f"{identity}\n")
    path.chmod(0o600)
    os.chown(path, postgres_user().uid, postgres_user().gid)
    return {
        "WAL_PIPELINE_AGE_RECIPIENTS": str(identity.to_public()),
        "WAL_PIPELINE_AGE_IDENTITY_FILE": str(path),
    }


def _give(folder: Path, *, mode: int = 0o755) -> None:
    """Make a folder that PostgreSQL's user owns."""
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    os.chown(folder, postgres_user().uid, postgres_user().gid)


@contextmanager
def _disk(folder: Path, *, lost_and_found: bool = True) -> Iterator[None]:
    """Mount a small file system, which PostgreSQL's user owns, at a folder below one of root's.

    As a new ext4 it has a folder ``lost+found`` that only root can read. Raises: NoMountPointError.
    """
    folder.parent.mkdir(exist_ok=True)
    os.chown(folder.parent, os.getuid(), os.getgid())
    folder.parent.chmod(0o755)
    folder.mkdir(exist_ok=True)
    user = postgres_user()
    options = f"size={_DISK_SIZE},mode=0700,uid={user.uid},gid={user.gid}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NoMountPointError(done.stderr.strip())
    try:
        if lost_and_found:
            (folder / "lost+found").mkdir(mode=0o700)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
