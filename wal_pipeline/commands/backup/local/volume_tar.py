"""Makes the frame of a volume's tar: the members' headers, their padding and the end, as PostgreSQL's own tars have it.

Standard tar programs read it. A volume is so small that its parts are chunks in memory; nobody builds it whole.
"""

import tarfile
from typing import Final

from wal_pipeline.archive.format.base_backup.file_index import MAX_BYTES_A_LINE
from wal_pipeline.errors import BaseBackupError

BLOCK_BYTES: Final = 512
TAR_END: Final = bytes(2 * BLOCK_BYTES)
_ENCODING: Final = "utf-8"
_ERRORS: Final = "surrogateescape"
_OCTAL_LIMIT: Final = 8 << 30
_LONGEST_PATH_BYTES: Final = MAX_BYTES_A_LINE // 8


def member_header(name: str, size_bytes: int, mode: int, modified_ns: int, *, is_folder: bool = False) -> bytes:
    """Return the header of one member: ``name`` relative to the data directory, ``mode`` its permissions.

    A name of up to 255 bytes fits where it can be split at a slash. A size from 8 GiB on is written as PostgreSQL
    writes it, in base 256. Raises: BaseBackupError for a name that a tar cannot hold.
    """
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if is_folder else tarfile.REGTYPE
    info.size, info.mode = size_bytes, mode & 0o7777
    # Older times than 1970 and later ones than the field holds are of no use to a restore: a tar has whole seconds.
    info.mtime = min(max(0, modified_ns // 1_000_000_000), _OCTAL_LIMIT - 1)
    # GNU's headers alone have base 256; they have no field for the first half of a long name.
    try:
        if size_bytes < _OCTAL_LIMIT:
            header = info.tobuf(tarfile.USTAR_FORMAT, _ENCODING, _ERRORS)
        else:
            header = info.tobuf(tarfile.GNU_FORMAT, _ENCODING, _ERRORS)
    except (ValueError, UnicodeEncodeError) as error:
        raise _unfit(name) from error
    if len(header) != BLOCK_BYTES:
        raise _unfit(name)
    return header


def padding(size_bytes: int) -> bytes:
    """Return the zeros that follow a member's content."""
    return bytes(-size_bytes % BLOCK_BYTES)


def framed_size(size_bytes: int) -> int:
    """Return how many bytes a member of that size takes in the tar, with header and padding."""
    return BLOCK_BYTES + size_bytes + -size_bytes % BLOCK_BYTES


def _unfit(name: str) -> BaseBackupError:
    shown = name.encode(_ENCODING, _ERRORS)[:_LONGEST_PATH_BYTES]
    return BaseBackupError(
        f"file {shown!r} cannot be stored in a tar: its name is too long",
        hint="PostgreSQL makes no such file. Move it out of the data directory.",
    )
