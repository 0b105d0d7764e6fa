"""Describes what was said of a base backup that ended well: ``report.json``, an object beside its manifest.

It exists only where there is something to say, and is no part of the manifest: an earlier version of the program
refuses a manifest with a key that it does not know, and ignores an object that the manifest does not name.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from wal_pipeline.archive.records import DamagedPages
from wal_pipeline.text import counted

REPORT_NAME: Final = "report.json"
REPORT_FORMAT: Final = "wal-pipeline base backup report"
_OWN_SHA256: Final = "report_sha256"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """The warnings of PostgreSQL's programs and server, and the pages with wrong checksums.

    Among the warnings are configuration files outside the data directory that could not be kept.
    """

    warnings: tuple[str, ...] = ()
    damaged_pages: tuple[DamagedPages, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.warnings or self.damaged_pages)

    def without_names(self) -> "BackupReport":
        """Return what may be stored in plain beside an encrypted base backup: numbers, no name of a file."""
        count = counted(len(self.warnings), "warning")
        told = (f"{count}, whose words are in the catalog of the host that took it: they may name files",)
        pages = tuple(DamagedPages("a file that is not named in plain", (), one.total) for one in self.damaged_pages)
        return BackupReport(told if self.warnings else (), pages)

    @property
    def damage_text(self) -> str:
        """How many pages are damaged, and where: ``2 damaged pages: wrong checksum in 'base/5/16384' block 3, 7``."""
        totals = [one.total for one in self.damaged_pages]
        count = counted(sum(totals), "damaged page") if all(totals) else "damaged pages"
        return f"{count}: wrong checksum in {'; '.join(str(one) for one in self.damaged_pages)}"

    def to_json(self) -> bytes:
        """Return the object's bytes; the last key is the SHA-256 of the JSON without that key."""
        values = {"format": REPORT_FORMAT, "version": 1, **report_values(self)}
        return _text({**values, _OWN_SHA256: hashlib.sha256(_text(values)).hexdigest()})

    @classmethod
    def parse(cls, data: bytes) -> "BackupReport":
        """Read the object. One that cannot be read is itself a warning: nobody may take the base backup for sound."""
        try:
            values = json.loads(data)
            _require_ours(values)
            return report_from_values(values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return cls((f"'{REPORT_NAME}' cannot be read, so what was said of this base backup is not known: {error}",))


def _require_ours(values: dict[str, Any]) -> None:
    rest = {name: value for name, value in values.items() if name != _OWN_SHA256}
    if hashlib.sha256(_text(rest)).hexdigest() != values[_OWN_SHA256]:
        raise ValueError("it is damaged")
    if (values["format"], values["version"]) != (REPORT_FORMAT, 1):
        raise ValueError("it is of a later version of wal-pipeline")


def report_values(report: BackupReport) -> dict[str, Any]:
    """Return a report as values that JSON can hold."""
    pages = [{"file": one.file, "blocks": list(one.blocks), "total": one.total} for one in report.damaged_pages]
    return {"warnings": list(report.warnings), "damaged_pages": pages}


def report_from_values(values: dict[str, Any]) -> BackupReport:
    """Read what ``report_values`` made. Raises: KeyError, TypeError, ValueError."""
    pages = tuple(
        DamagedPages(str(one["file"]), tuple(int(block) for block in one["blocks"]), int(one["total"]))
        for one in values["damaged_pages"]
    )
    return BackupReport(tuple(str(one) for one in values["warnings"]), pages)


def _text(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=True) + "\n").encode("ascii")
