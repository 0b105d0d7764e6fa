"""Tells a copy beside a living original from a server that takes its original's place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.errors import PostgresError, RestoreError


@dataclass(frozen=True, slots=True)
class OriginalServer:
    """Where the settings say that the cluster lives. ``pgdata`` is its data directory, None where none is set.

    ``answers`` tells whether any server answers at ``address``, ``identify`` which system identifier it has.
    """

    pgdata: Path | None
    address: str
    answers: Callable[[], bool]
    identify: Callable[[], int]

    def signs_of_life(self, target: Path, system_identifier: int) -> tuple[str, ...]:
        """Return what says that a server restored into ``target`` is a copy beside its original; nothing: no sign.

        A server that answers and cannot be asked who it is may be the original, and counts as such.
        """
        found = []
        if self.pgdata is not None and self.pgdata.resolve() != target.resolve():
            found.append(f"'{target}' is not the data directory of the settings, which is '{self.pgdata}'")
        if self.answers():
            found += self._words(system_identifier)
        return tuple(found)

    def _words(self, system_identifier: int) -> list[str]:
        try:
            same = self.identify() == system_identifier
        except PostgresError as error:
            return [
                f"a server answers at {self.address} that does not tell whether it is the original: {error.message}"
            ]
        return [f"the original answers at {self.address}"] if same else []


def decide_role(request: RestoreRequest, signs: tuple[str, ...]) -> RestoreRequest:
    """Return the request with the signs of an original that lives; without any, an undecided one is a replacement.

    One of only some databases is a copy, which no sign is needed for. A standby is neither: its original lives.
    """
    if request.standby is not None:
        return request
    archiving = request.archiving
    if archiving is None and request.only_databases:
        archiving = False
    elif archiving is None and not signs:
        archiving = True
    return replace(request, archiving=archiving, signs_of_original=signs)


def require_role(request: RestoreRequest) -> None:
    """Refuse a restore that may make a copy, and of which nobody said what it is. Raises: RestoreError."""
    if request.archiving is None and request.standby is None:
        raise RestoreError(
            f"the restored server may be a copy beside its original ({'; '.join(request.signs_of_original)}), and both "
            "would archive into one archive",
            hint="Say which: --no-archiving makes a copy, which does not archive and is set apart from its original; "
            "--archiving makes the server that takes its original's place, and the original must not run any more. "
            "In a run's configuration: archiving: false or true.",
        )
