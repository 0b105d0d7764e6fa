"""The names of the asset checks that more than one job answers."""

from typing import Final

NAMES_CHECK: Final = "names_and_sizes"
CONTENT_CHECK: Final = "content"
BACKUP_CHECK: Final = "newest_fresh"
DRILL_CHECK: Final = "last_drill_{store}"
