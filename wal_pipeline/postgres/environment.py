"""Chooses the variables that PostgreSQL's programs get from our environment."""

import os
from typing import Final

_KEPT_VARIABLES: Final = (
    *("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TZ", "TMPDIR"),
    *("LOCPATH", "LOCALE_ARCHIVE", "TZDIR", "ICU_DATA"),  # where a system keeps its locales and zones elsewhere
)


def plain_environment() -> dict[str, str]:
    """Return the part of our environment that PostgreSQL's programs need: no credentials, no connection settings."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
