"""Names the compression levels of each codec, and refuses those that it does not have."""

from collections.abc import Mapping
from typing import Final

from wal_pipeline.archive.records import Codec
from wal_pipeline.errors import SettingsError

LEVELS: Final = {Codec.GZIP: (1, 9), Codec.ZSTD: (-7, 22), Codec.LZ4: (-7, 16), Codec.NONE: (0, 0)}
WAL_LEVELS: Final = {Codec.GZIP: 9, Codec.ZSTD: 3, Codec.LZ4: 0, Codec.NONE: 0}
BASE_BACKUP_LEVELS: Final = WAL_LEVELS | {Codec.GZIP: 6}


def choose_level(codec: Codec, level: int | None, defaults: Mapping[Codec, int], *, variable: str) -> int:
    """Return ``level``, or the codec's default where it is None. ``variable`` names the setting in the hint.

    Raises: SettingsError for a level that the codec does not have.
    """
    chosen = defaults[codec] if level is None else level
    lowest, highest = LEVELS[codec]
    if not lowest <= chosen <= highest:
        raise SettingsError(
            f"codec '{codec}' has no level {chosen}: expected {lowest} to {highest}",
            hint=f"Set {variable}, or leave it out for the codec's usual level.",
        )
    return chosen
