"""Runs ``wal-pipeline`` in processes that have everything imported: that takes most of a short command's time."""

import atexit
import contextlib
import ctypes
import io
import multiprocessing
import os
import pkgutil
import runpy
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import wal_pipeline
from testbed.postgres_install import postgres_user
from testbed.processes import RunAs

_MODULE = "wal_pipeline.cli"
_WITHOUT = ("cli.__main__", "orchestration", "definitions", "worker")  # a command line imports no Dagster
# linux/prctl.h and linux/capability.h
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 4, 8, 47, 2
_CAP_DAC_OVERRIDE, _CAPABILITY_VERSION_3 = 1, 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)
_server = multiprocessing.get_context("forkserver")


def run_warm(
    *words: str,
    env: Mapping[str, str],
    cwd: Path | str = "/",
    timeout_seconds: float = 120,
    as_postgres: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end, as ``python -m wal_pipeline.cli`` would: a process, an environment, a folder.

    It is forked from a process that has imported the program's modules and has done nothing else. Where the start
    itself matters, or the process is watched, start Python. ``as_postgres``: run it as PostgreSQL's user.

    Raises: subprocess.TimeoutExpired, once the process is killed.
    """
    user = postgres_user() if as_postgres else None
    _server.set_forkserver_preload([__name__, *_modules()])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = tuple(f"/proc/{os.getpid()}/fd/{one.fileno()}" for one in (out, err))
        process = _server.Process(target=_play, args=(words, dict(env), str(cwd), streams, user))
        process.start()
        process.join(timeout_seconds)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout_seconds, _text(out), _text(err))
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, _text(out), _text(err))


def _modules() -> list[str]:
    """Name the modules that a command line may import."""
    found = pkgutil.walk_packages(wal_pipeline.__path__, "wal_pipeline.", onerror=lambda _name: None)
    without = tuple(f"wal_pipeline.{name}" for name in _WITHOUT)
    return [one.name for one in found if not one.name.startswith(without)]


def _play(words: tuple[str, ...], env: dict[str, str], cwd: str, streams: tuple[str, str], user: RunAs | None) -> None:
    """Become the command, in the forked process."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(cwd)
    for number, (path, flags) in enumerate([(os.devnull, os.O_RDONLY), *((path, os.O_RDWR) for path in streams)]):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    if user is not None and os.getuid() != user.uid:
        _become(user)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), encoding="utf-8", errors=errors, line_buffering=lines)
        for number, errors, lines in ((1, "surrogateescape", False), (2, "backslashreplace", True))
    )
    sys.argv = [_MODULE, *words]
    try:
        runpy.run_module(_MODULE, run_name="__main__", alter_sys=True)
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # multiprocessing ends without them


def _become(user: RunAs) -> None:
    """Do what setpriv does with the options of ``user``."""
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    kept = 1 << _CAP_DAC_OVERRIDE if user.reads_everything else 0
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("6I", kept, kept, kept, 0, 0, 0)) != 0:  # effective, permitted, inheritable
        raise OSError(ctypes.get_errno(), "capset")
    if kept:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)
    _prctl(_PR_SET_DUMPABLE, 1)  # as after an exec: the process may look at itself in /proc


def _prctl(*arguments: int) -> None:
    if _libc.prctl(*(ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0)[:5])) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="backslashreplace")
