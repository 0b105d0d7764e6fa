"""The everyday accident: a table is dropped under load, found by its time, and brought back; the server stays up."""

import json
import shlex
import time
from dataclasses import dataclass
from typing import Any, Final

from demo.folder import DemoError
from demo.restore import ROWS, Accident, content_of
from demo.scene import Scene, Tell
from testbed.processes import ChildProcess

_SCHEMA: Final = "rescued"
_MERGE: Final = f"ALTER TABLE {_SCHEMA}.orders SET SCHEMA public"


@dataclass(frozen=True, slots=True)
class RescueReport:
    """``accident_xid``: the transaction that ``find`` named. ``rows_back`` were counted on the living server.

    ``rescue_seconds``: from the command until the rows were there. ``server_stayed_up``: neither the server nor the
    load on it was ended meanwhile.
    """

    accident_xid: int
    find_seconds: float
    rescue_seconds: float
    rows_back: int
    server_stayed_up: bool

    @property
    def holds(self) -> bool:
        """Whether the table is back, while everybody else went on."""
        return self.rows_back == ROWS and self.server_stayed_up


def bring_back(scene: Scene, accident: Accident, load: ChildProcess, tell: Tell) -> RescueReport:
    """Find the transaction by the time alone, and load the table beside the living ones, then in its place.

    Raises: DemoError where another transaction is named, or the table is not what it was.
    """
    server = scene.cluster.pid
    find_seconds, summary = _timed(scene, tell, "find", "--from", accident.seen_at)
    if summary["suspect_xid"] != accident.xid:
        raise DemoError(f"'find' names transaction {summary['suspect_xid']}, expected {accident.xid}, the DROP TABLE")
    tell(f"transaction {summary['suspect_xid']} did it: {summary['suspect_reason']}")
    rescue_seconds, _ = _timed(scene, tell, *shlex.split(summary["rescue"])[1:], "--as", _SCHEMA)
    tell(_MERGE)
    scene.cluster.psql(_MERGE)
    if content_of(scene.cluster) != accident.content:
        raise DemoError("the rescued table has other rows than before the accident")
    rows_back = int(scene.cluster.value("SELECT count(*) FROM orders"))
    stayed_up = scene.cluster.is_running and scene.cluster.pid == server and load.is_running
    tell(f"{rows_back} rows are back after {rescue_seconds:.1f} s; the server and its load went on")
    return RescueReport(accident.xid, round(find_seconds, 3), round(rescue_seconds, 3), rows_back, stayed_up)


def _timed(scene: Scene, tell: Tell, *words: str) -> tuple[float, dict[str, Any]]:
    """Type a command; return its seconds, and the last object that it prints."""
    tell(scene.typed(*words))
    begun = time.monotonic()
    *_, last = scene.command(*words, "--json").splitlines()
    answer: dict[str, Any] = json.loads(last)
    return time.monotonic() - begun, answer
