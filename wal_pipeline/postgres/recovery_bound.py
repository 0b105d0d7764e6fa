"""A ``restore_command`` that ends recovery at a planned segment, where PostgreSQL has no target to stop at."""

from typing import Final

from wal_pipeline.wal.names import require_file_name

_DIGITS: Final = 8  # a segment's name is three numbers of eight hex digits: timeline, log, segment in it


def bounded_command(restore_command: str, last_segment: str) -> str:
    """Return the command with a guard before it: each segment after ``last_segment``, on any timeline, is absent.

    The archive may grow, and files may have been fetched ahead, between the plan and the replay. History files pass:
    PostgreSQL looks for them to choose the new timeline. Exit code 1 is absence (xlogarchive.c: RestoreArchivedFile);
    the guard computes only with names of 24 characters, so that it cannot fail by itself.
    """
    name = require_file_name(last_segment).name
    log, segment = name[_DIGITS : 2 * _DIGITS], name[2 * _DIGITS :]
    any_digits = "?" * _DIGITS
    return (
        f'f="%f"; case "$f" in {any_digits * 3}) n=${{f#{any_digits}}}; '
        f"l=$((0x${{n%%{any_digits}}})) s=$((0x${{n#{any_digits}}})); "  # %% is one % in a restore_command
        f"if [ $l -gt $((0x{log})) ] || {{ [ $l -eq $((0x{log})) ] && [ $s -gt $((0x{segment})) ]; }}; "
        f"then exit 1; fi;; esac; {restore_command}"
    )
