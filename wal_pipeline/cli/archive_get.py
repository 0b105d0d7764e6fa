"""``wal-pipeline archive-get FILE DESTINATION``: a ``restore_command``, whose exit codes PostgreSQL acts on.

0: delivered. 1 (or the code of ``--exit-absent``): every configured store answered and none has the file. Above
125: everything else, so that PostgreSQL stops rather than take a failure for the end of the archive. Nothing may
end this program with a code of 1 to 125 by accident, so the whole call is guarded, and it leaves by ``os._exit``.

A standby does not end at the end of the archive, and asks again: with ``--standby`` an outage is as good as absence.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from wal_pipeline.commands.archive_get.prefetch_folder import PrefetchFolder
    from wal_pipeline.commands.archive_get.wal_source import WalSource
    from wal_pipeline.stores.base import Store
    from wal_pipeline.wal.names import WalFileName
    from wal_pipeline.wiring.pipeline import Pipeline

_EXIT_FAILED = 200  # the same as commands.restore_command.EXIT_FAILED, which an import error must not hide
_EXIT_INTERRUPTED = 130
_DESCRIPTION = "Fetch one file of the WAL archive: PostgreSQL's restore_command."


def main(arguments: Sequence[str]) -> NoReturn:
    """Run and leave the process with one of the exit codes above, whatever happens."""
    code = _EXIT_FAILED
    try:
        code = _run(arguments)
    except SystemExit as error:  # argparse: 0 after --help, 2 after a mistake
        code = 0 if error.code == 0 else _EXIT_FAILED
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - PostgreSQL must never see Python's own exit code 1
        _report(error)
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End without Python's own shutdown, which exits with 120 where stderr cannot be flushed."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _report(error: BaseException) -> None:
    from wal_pipeline.errors import WalPipelineError

    if isinstance(error, WalPipelineError):
        say(f"ERROR: {error}")
    else:
        say("ERROR: " + "".join(traceback.format_exception_only(error)).strip())
        traceback.print_exception(error)


def say(text: str) -> None:
    """Write to stderr, which goes into PostgreSQL's log."""
    sys.stderr.write(f"wal-pipeline archive-get: {text}\n")
    sys.stderr.flush()


def _run(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.print_restore_command:
        return _print_restore_command(options)
    return _deliver(options)


def parser() -> argparse.ArgumentParser:
    """Return the parser; argparse rather than click, which takes longer to import."""
    found = argparse.ArgumentParser("wal-pipeline archive-get", description=_DESCRIPTION, allow_abbrev=False)
    found.add_argument("file", nargs="?", help="the file's name: %%f in a restore_command")
    found.add_argument("destination", nargs="?", type=Path, help="where to put it: %%p in a restore_command")
    found.add_argument("--pgdata", type=Path, help="the data directory (default: the current folder)")
    found.add_argument("--store", default="any", help="ask only this store, such as r2 (default: any)")
    found.add_argument("--system-identifier", type=int, help="default: PGDATA's, the setting, or the only one")
    found.add_argument("--env-file", type=Path, help="the settings file (default: WAL_PIPELINE_ENV_FILE, else .env)")
    found.add_argument("--prefetch-dir", type=Path, help="where to keep segments that were fetched ahead")
    found.add_argument("--no-prefetch", action="store_true", help="fetch nothing ahead")
    found.add_argument("--retry-seconds", type=float, default=60.0, help="how long to try while stores are unavailable")
    found.add_argument(
        "--standby", action="store_true", help="in a standby an outage of the stores does not end the server"
    )
    found.add_argument(
        "--exit-absent",
        type=int,
        choices=range(1, 126),
        default=1,
        metavar="CODE",
        help="exit code for proven absence (default: 1)",
    )
    found.add_argument(
        "--print-restore-command", action="store_true", help="print the line for postgresql.conf, with these options"
    )
    return found


def _deliver(options: argparse.Namespace) -> int:
    from wal_pipeline.commands.archive_get.restore_command import (
        EXIT_DELIVERED,
        fetch_and_deliver,
        note_position,
        take_prefetched,
    )
    from wal_pipeline.commands.archive_get.wal_source import WalUnreachableError
    from wal_pipeline.errors import StoreUnavailableError

    name, destination = _operands(options)
    call = _Call(options)
    folder = _trusted(call.folder())
    delivery = take_prefetched(folder, name, destination)
    if delivery is None:
        fetch = call.source.fetch
        try:
            delivery = fetch_and_deliver(lambda: fetch(name), destination, options.retry_seconds, say)
        except (WalUnreachableError, StoreUnavailableError) as error:
            if not (options.standby and call.is_standby() and error.may_pass):
                raise
            say(f"{error.message}\nThis is a standby: PostgreSQL asks again.")
            return int(options.exit_absent)
    if delivery is not None:
        for note in delivery.notes:
            say(f"'{name.name}' was taken from {delivery.store}: {note}")
    try:
        if folder is not None and note_position(folder, name, delivery):
            _start_prefetcher(folder, call)
    except OSError as error:
        say(f"cannot fetch ahead in '{error.filename}': {error.strerror}")
    return EXIT_DELIVERED if delivery is not None else int(options.exit_absent)


def _trusted(folder: "PrefetchFolder | None") -> "PrefetchFolder | None":
    """Return the folder; None, and a word in the log, where another user could have put files into it."""
    from wal_pipeline.errors import RestoreError

    if folder is None:
        return None
    try:
        folder.check(os.geteuid())
    except RestoreError as error:
        say(f"nothing is fetched ahead: {error}")
        return None
    return folder


def _operands(options: argparse.Namespace) -> tuple["WalFileName", Path]:
    from wal_pipeline.errors import SettingsError
    from wal_pipeline.wal.names import require_file_name

    if options.file is None or options.destination is None:
        raise SettingsError("the file's name and the destination are missing: expected archive-get %f %p")
    return require_file_name(options.file), options.destination.absolute()


class _Call:
    """What one call needs, made when it is needed: a prefetched file is delivered before boto3 is imported."""

    def __init__(self, options: argparse.Namespace) -> None:
        from wal_pipeline.commands.archive_get.prefetch_client import fingerprint

        self._options = options
        self.pgdata: Path = (options.pgdata or Path()).absolute()
        self.fingerprint = fingerprint(sys.orig_argv[:-2], os.environ)  # before the settings are read

    @cached_property
    def pipeline(self) -> "Pipeline":
        """The settings and what they describe. Raises: SettingsError."""
        from wal_pipeline.wiring.pipeline import open_pipeline

        return open_pipeline(self._options.env_file)

    @cached_property
    def system_identifier(self) -> int:
        """The cluster's: by option, from pg_control, by setting, else the only one below the cluster's name."""
        from wal_pipeline.commands.inventory.system_identifiers import only_system_identifier
        from wal_pipeline.postgres.control_file import read_control_file

        if self._options.system_identifier is not None:
            return int(self._options.system_identifier)
        if (self.pgdata / "global" / "pg_control").exists():
            return read_control_file(self.pgdata).system_identifier
        settings = self.pipeline.settings
        if settings.system_identifier is not None:
            return settings.system_identifier
        return only_system_identifier(self.stores(), settings.prefix, settings.cluster)

    def stores(self) -> tuple["Store", ...]:
        """Open the stores to ask, with connections of their own."""
        names = self.pipeline.settings.stores if self._options.store == "any" else (self._options.store,)
        return tuple(self.pipeline.open_stores(names).values())

    @cached_property
    def source(self) -> "WalSource":
        """Where the file can be fetched from."""
        from wal_pipeline.commands.archive_get.wal_source import WalSource

        layout = self.pipeline.layout(self.system_identifier)
        return WalSource(layout, self.stores(), tuple(self.pipeline.identities))

    def is_standby(self) -> bool:
        """Whether the server is a standby, and no recovery that ends where the archive does (xlogrecovery.c)."""
        return (self.pgdata / "standby.signal").exists()

    def server_uid(self) -> int:
        """Who runs the server: for root the data directory's owner, where there is one."""
        return self.pgdata.stat().st_uid if os.geteuid() == 0 and self.pgdata.exists() else os.geteuid()

    def folder(self) -> "PrefetchFolder | None":
        """The folder of prefetched files; None where nothing shall be fetched ahead."""
        from wal_pipeline.commands.archive_get.restore_command import prefetch_folder

        if self._options.no_prefetch:
            return None
        return prefetch_folder(self.pgdata, self.system_identifier, self._options.prefetch_dir)


def _start_prefetcher(folder: "PrefetchFolder", call: _Call) -> None:
    """Go on in a process of our own, which the server neither waits for nor signals; return once it answers.

    A fork, not a new program: everything is imported and connected already, so the next segments are under way at
    once. It takes the connections over: from here on we only leave, by ``os._exit``, and never use them again.
    """
    sys.stderr.flush()
    ready, tell = os.pipe()
    if os.fork() > 0:
        os.close(tell)
        os.read(ready, 1)  # ends with the process, too
        return
    try:
        os.close(ready)
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # the server waits for the end of its log pipe
            os.dup2(nowhere, stream)
        os.chdir(folder.path)
        _prefetch(folder, call.source, call.fingerprint, lambda: os.close(tell))
    finally:
        # In a container the server may be process 1 and inherit us: it takes an unknown child that ends with another
        # code than 0 for a crashed backend (postmaster.c: CleanupBackend) and restarts.
        os._exit(0)


def _prefetch(folder: "PrefetchFolder", source: "WalSource", fingerprint: str, on_ready: Callable[[], None]) -> None:
    from wal_pipeline.commands.archive_get.prefetch_server import PrefetchServer
    from wal_pipeline.commands.archive_get.prefetcher import Prefetcher, PrefetchLimits

    prefetcher = Prefetcher(folder, source.fetch, PrefetchLimits())
    answers = PrefetchServer(folder, source.fetch, fingerprint, on_ready=on_ready, on_other_settings=prefetcher.stop)
    prefetcher.run(answers, asked_at=lambda: answers.asked_at)


def _print_restore_command(options: argparse.Namespace) -> int:
    from wal_pipeline.commands.archive_get.restore_command import EXIT_DELIVERED, program, shell_line
    from wal_pipeline.settings import settings_file

    call = _Call(options)
    call.stores()  # settings that cannot be used are told now, not in the middle of a recovery
    folder = call.folder()
    if folder is not None:
        folder.check(call.server_uid())
    words = program(
        call.system_identifier,
        env_file=settings_file(options.env_file),
        prefetch_dir=options.prefetch_dir,
        store=options.store,
        retry_seconds=options.retry_seconds,
        prefetch=not options.no_prefetch,
        standby=options.standby,
    )
    sys.stdout.write(shell_line(words, None if folder is None else folder.path) + "\n")
    return EXIT_DELIVERED


if __name__ == "__main__":
    main(sys.argv[1:])
