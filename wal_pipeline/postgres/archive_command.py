"""Makes the ``archive_command`` that puts a WAL file durably into the spool, for servers without ``basic_archive``."""

import os
import re
import shlex
from pathlib import Path
from typing import Final

from wal_pipeline.errors import SpoolError

MAX_EXPANDED_BYTES: Final = 1023
_LAST_WITH_LIMIT: Final = 15
_LONGEST_NAME: Final = b"000000010000000000000001.00000028.backup"
_OTHER_CONTENT: Final = "wal-pipeline: %f is in the spool with other content"
# Each step is its own `if`, because an alternative of two commands would need a group. The rules:
#  - The same file with the same content is success: a crash came after the rename, before PostgreSQL noted it. The file
#    is synced, because the crash may have come before the sync.
#  - A temporary file of an earlier try is removed. A new one has the shell's process id in its name, so that a command
#    that outlived a crashed server never writes into the file that this one renames.
#  - The file is on disk before it gets its name, and its name is on disk before the command exits with 0.
#  - Every failure exits with 1: above 125 PostgreSQL stops its archiver process.
_LINE: Final = (
    'd={folder}; f="$d/%f"; t="$d/.%f.$$.tmp"; '
    'if [ -e "$f" ]; then '
    'if cmp -s "%p" "$f"; then sync "$f" && sync "$d" || exit 1; '
    'else echo "{other_content}" >&2; exit 1; fi; '
    'else rm -f "$d"/.%f.*.tmp; '
    'cp "%p" "$t" && {share}sync "$t" && mv "$t" "$f" && sync "$d" || {{ rm -f "$t"; exit 1; }}; '
    "fi"
)


def durable_archive_command(spool: Path, *, group_readable: bool = False) -> str:
    """Return an ``archive_command`` for ``sh`` that survives a crash at any point.

    It copies to a temporary name in the spool (which begins with a dot, so that nobody archives it), syncs, renames,
    and syncs the folder. It never overwrites, and exits with 0 or 1 only. ``group_readable`` lets the folder's group
    read the file: only PostgreSQL's user may read its own files.

    Raises: SpoolError where the path cannot stand in a server setting.
    """
    text = str(spool)
    if not spool.is_absolute() or re.search(r"[\x00-\x1f\x7f]", text):
        raise SpoolError(
            f"spool '{text!a}' cannot stand in archive_command: expected an absolute path without control characters"
        )
    return _LINE.format(
        folder=shlex.quote(text).replace("%", "%%"),  # PostgreSQL reads %% as %
        other_content=_OTHER_CONTENT,
        share='chmod 0640 "$t" && ' if group_readable else "",
    )


def bytes_too_many(command: str, major: int) -> int:
    """Return by how many bytes a server's command is too long; 0 where it fits.

    PostgreSQL 15 and older (pgarch.c: ``char xlogarchcmd[MAXPGPATH]``) cut the line off after ``%p`` and ``%f`` have
    got their values, and the shell sees half of it. The longest file name is that of a backup history file.
    """
    if major > _LAST_WITH_LIMIT:
        return 0
    values = {b"%p": b"pg_wal/" + _LONGEST_NAME, b"%f": _LONGEST_NAME, b"%%": b"%"}
    expanded = re.sub(rb"%[pf%]", lambda match: values[match[0]], os.fsencode(command))
    return max(0, len(expanded) - MAX_EXPANDED_BYTES)


def is_durable(command: str, spool: Path) -> bool:
    """Return whether ``command`` is one of the lines that ``durable_archive_command`` makes for this spool."""
    return command in (durable_archive_command(spool), durable_archive_command(spool, group_readable=True))


def archives_into(command: str, spool: Path) -> bool:
    """Return whether ``command`` names the spool, as far as its text shows."""
    path = re.escape(str(spool).replace("%", "%%"))
    return re.search(rf"(?<![\w./-]){path}(?=[/'\"\s;]|$)", command.replace("'\"'\"'", "'")) is not None
