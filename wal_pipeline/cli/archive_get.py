"""``wal-pipeline archive-get FILE DESTINATION`` is a ``restore_command``: PostgreSQL acts on its exit codes.

0: delivered. 1 (or the code of ``--exit-absent``): every configured store answered and none has the file. Above
125: everything else, so that PostgreSQL stops rather than take a failure for the end of the archive. Nothing may
end this program with a code of 1 to 125 by accident, so the whole call is guarded, and it leaves by ``os._exit``.

A standby does not end at the end of the archive, and asks again: with ``--standby`` an outage is as good as absence.

With ``--tail`` a segment that no store has whole is made from its pieces. 'wal-pipeline restore' writes that option
where its plan ends in pieces; a store that does not tell its pieces is an outage.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # an import that fails must not end the program before it can say so
    from wal_pipeline.commands.archive_get.tail_wal import TailLimits
    from wal_pipeline.wiring.archive_get import RecoveringCluster

_EXIT_DELIVERED = 0
_EXIT_FAILED = 200  # the same as restore_command.EXIT_FAILED, which an import error must not hide
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
    from wal_pipeline.host.own_command import typeable

    if isinstance(error, WalPipelineError):
        say(f"ERROR: {typeable(str(error))}")
    else:
        say("ERROR: " + "".join(traceback.format_exception_only(error)).strip())
        traceback.print_exception(error)


def say(text: str) -> None:
    """Write to stderr, which goes into PostgreSQL's log."""
    sys.stderr.write(f"wal-pipeline archive-get: {text}\n")
    sys.stderr.flush()


def _run(arguments: Sequence[str]) -> int:
    from wal_pipeline.host.output import accept_any_text

    accept_any_text()
    options = parser().parse_args(arguments)
    if options.print_restore_command:
        sys.stdout.write(_cluster(options).restore_command() + "\n")
        return _EXIT_DELIVERED
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
        "--tail",
        type=int,
        action="append",
        default=[],
        metavar="TIMELINE",
        help="make a segment of this timeline that no store has whole from its pieces",
    )
    found.add_argument("--tail-reach", metavar="SEGMENT+BYTES", help="fail where the WAL up to here is not there")
    found.add_argument("--tail-end", metavar="SEGMENT+BYTES", help="deliver no WAL from here on")
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
    from wal_pipeline.errors import SettingsError
    from wal_pipeline.wal.names import require_file_name

    if options.file is None or options.destination is None:
        raise SettingsError("the file's name and the destination are missing: expected archive-get %f %p")
    name, destination = require_file_name(options.file), options.destination.absolute()
    call = _cluster(options).call(sys.orig_argv[:-2], say)
    return _EXIT_DELIVERED if call.deliver(name, destination) else int(options.exit_absent)


def _cluster(options: argparse.Namespace) -> "RecoveringCluster":
    from wal_pipeline.wiring.archive_get import RecoveringCluster

    return RecoveringCluster(
        pgdata=(options.pgdata or Path()).absolute(),
        env_file=options.env_file,
        store=options.store,
        given_system_identifier=options.system_identifier,
        prefetch_dir=options.prefetch_dir,
        prefetch=not options.no_prefetch,
        retry_seconds=options.retry_seconds,
        standby=options.standby,
        tail=_tail(options),
    )


def _tail(options: argparse.Namespace) -> "TailLimits":
    from wal_pipeline.commands.archive_get.tail_wal import SegmentOffset, TailLimits
    from wal_pipeline.errors import SettingsError

    try:
        reach, end = (
            None if text is None else SegmentOffset.parse(text) for text in (options.tail_reach, options.tail_end)
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return TailLimits(frozenset(options.tail), reach, end)


if __name__ == "__main__":
    main(sys.argv[1:])
