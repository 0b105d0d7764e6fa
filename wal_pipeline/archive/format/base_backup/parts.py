"""Names the parts of files that are larger than a volume, so that a person can join them with ``cat``.

A part is a member of a volume's tar. Its name is the file's with the mark and the part's place in the file, in bytes:
``base/5/16384.wal-pipeline-part.000000268435456``. The places have fifteen digits, so that names sort by them.
"""

import re
from typing import Final

_MARK: Final = ".wal-pipeline-part."
_PART: Final = re.compile(rf"(?s:(.+)){re.escape(_MARK)}([0-9]{{15}})\Z")
LARGEST_OFFSET: Final = 10**15 - 1


def part_name(path: str, offset_bytes: int) -> str:
    """Return the member's name of a file's part that begins at ``offset_bytes``."""
    if not 0 <= offset_bytes <= LARGEST_OFFSET:
        raise ValueError(f"no part of a file begins at {offset_bytes} bytes")
    return f"{path}{_MARK}{offset_bytes:015d}"


def split_part_name(name: str) -> tuple[str, int] | None:
    """Return the file and the place of a part by its member's name; None for a whole file's."""
    found = _PART.match(name)
    return None if found is None else (found[1], int(found[2]))
