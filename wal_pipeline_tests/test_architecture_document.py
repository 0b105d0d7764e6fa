"""docs/architecture.md and CONTRIBUTING.md tell the truth about the files: paths, rooms, layers, and who imports whom.

An import proves that one file can call the other. It does not prove the order of the calls: the runs' own tests do.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from testbed.source_tree import PACKAGE, Graph, read_checkout, runtime_graph
from wal_pipeline.cli.registry import COMMANDS

pytestmark = pytest.mark.left_out  # 'make check' plays them each time

ROOT: Final = Path(__file__).parents[1]
ARCHITECTURE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

MOST_ROOMS: Final = 11
INVARIANTS: Final = 12
WALKS: Final = ("A WAL segment", "A base backup", "A restore")
OUTSIDE: Final = ("Dagster", "a person", "PostgreSQL")
NOT_IN_THE_PICTURE: Final = {
    "commands/fetch_ask.py": "stays for one release at the path that running recoveries were given",
}

_CODE: Final = re.compile(r"`([^`\n]+)`")
_SUFFIXED: Final = re.compile(r"[\w./-]+\.(?:py|toml|md|yaml|yml|json|j2|sh|example)")
_FOLDER: Final = re.compile(r"[a-z_]+(?:/[a-z_0-9]+)*/")
_MODULE: Final = re.compile(r"wal_pipeline(?:\.\w+)+")
_TOKEN: Final = re.compile(r"(?<![\w./])[a-z_0-9]+(?:/|\.py)(?![\w/])")
_CALLED_BY: Final = re.compile(r"(\d+)(?:, as `(?P<interface>[^`]+)`)?(?:, given by `(?P<giver>[^`]+)`)?")
_COMMIT: Final = re.compile(r"`([0-9a-f]{7})` \"([^\"]+)\"")


# What the documents say


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a walk. ``caller`` is the calling step's path, None where Dagster, PostgreSQL or a person calls.

    ``giver`` hands the object to the caller, where the caller does not import the file itself; ``interface`` is the
    file with the type that the caller knows it by.
    """

    number: int
    path: str
    caller: str | None
    outside: str | None
    interface: str | None
    giver: str | None
    text: str


def section(title: str) -> str:
    """Return the text below a heading of docs/architecture.md."""
    return re.split(r"^## ", ARCHITECTURE.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def walks(title: str) -> list[list[Step]]:
    """Return the tables of a section as steps."""
    tables: list[list[Step]] = []
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| | file |"):
            tables.append([])
        elif tables and re.match(r"\| \d+ \|", line):
            tables[-1].append(step(cells, tables[-1]))
    return tables


def step(cells: Sequence[str], before: Sequence[Step]) -> Step:
    """Read one row; its caller is one of the steps ``before``."""
    number, path, called_by, text = cells
    found = _CALLED_BY.fullmatch(called_by)
    assert found or called_by in OUTSIDE, f"step {number}: '{called_by}' names neither a step nor one of {OUTSIDE}"
    callers = {str(one.number): one.path for one in before}
    assert not found or found[1] in callers, f"step {number}: no step {found and found[1]} stands before it"
    caller = callers[found[1]] if found else None
    interface, giver = (found["interface"], found["giver"]) if found else (None, None)
    return Step(int(number), path.strip("`"), caller, None if found else called_by, interface, giver, text)


def all_walks() -> list[list[Step]]:
    """Return every walk of the document."""
    return [walk for title in WALKS for walk in walks(title)]


def picture() -> Iterator[tuple[str, list[str]]]:
    """Yield the picture's rows: the folder that a row stands in, empty at the top, and the names in it."""
    block = re.search(r"```text\n(.*?)```", section("The house"), re.DOTALL)
    assert block, "docs/architecture.md has no picture"
    frame = ""
    for line in block[1].splitlines():
        if line.startswith("┌"):
            names = re.findall(r"┌ (\S+)", line)
            frame = names[0]
            yield "", names
        elif line.startswith("│"):
            yield frame, _TOKEN.findall(line.split("│")[1])
        elif not line.startswith("└"):
            yield "", _TOKEN.findall(line)


def rows() -> dict[str, list[set[str]]]:
    """Return the picture's rows that name something, by the folder that they stand in."""
    found: dict[str, list[set[str]]] = {}
    for folder, names in picture():
        if names:
            found.setdefault(folder, []).append(set(names))
    return found


# What the code says


@pytest.fixture(scope="module")
def imports() -> Graph:
    """Which modules import which when the program runs, also inside functions; by dotted name."""
    return runtime_graph(read_checkout(ROOT, [PACKAGE]).package)


def dotted(path: str) -> str:
    """Return the module's name: ``wal_pipeline.stores.base`` for ``stores/base.py``."""
    return f"{PACKAGE}/{path.removesuffix('.py')}".replace("/", ".")


def contracts() -> dict[str, list[set[str]]]:
    """Return the layers of pyproject.toml, outermost first, by the container that they divide."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    layers: dict[str, list[set[str]]] = {}
    for contract in found:
        (container,) = contract.get("containers", [PACKAGE])
        names = [[name.strip().removeprefix(f"{PACKAGE}.") for name in row.split("|")] for row in contract["layers"]]
        layers[container] = [set(row) for row in names]
    return layers


def layer(module: str, container: str, layers: Sequence[set[str]]) -> tuple[int, str] | None:
    """Return a module's row in a container, counted inwards, and its name in the row; None outside the container."""
    if not module.startswith(f"{container}."):
        return None
    name = module.removeprefix(f"{container}.").split(".")[0]
    return next(((number, name) for number, row in enumerate(layers) if name in row), None)


def upward(caller: str, callee: str, layers_of: Mapping[str, Sequence[set[str]]]) -> str | None:
    """Return why a step leads upwards or beside its caller's room; None where it leads inwards or stays."""
    compared = False
    for container, layers in layers_of.items():
        outer, inner = layer(dotted(caller), container, layers), layer(dotted(callee), container, layers)
        if outer is None or inner is None:
            continue
        compared = True
        if inner[0] < outer[0] or (inner[0] == outer[0] and inner[1] != outer[1]):
            return f"{caller} -> {callee}: '{inner[1]}' is not further in than '{outer[1]}'"
    return None if compared else f"{caller} -> {callee}: no contract knows both"


def room(path: str) -> str:
    """Return a file's room: its folder, or the file where it stands alone beside rooms."""
    folder = Path(path).parent
    alone = folder.as_posix() in {".", "commands", "orchestration", "stores", "archive"}
    return path if alone else folder.as_posix()


def missing_link(one: Step, imports: Graph) -> str | None:
    """Return which import is missing for a step to be called as its row says; None where all are there."""
    wanted = [(dotted(before), dotted(after)) for before, after in links(one)]
    absent = [f"{before} does not import {after}" for before, after in wanted if after not in imports.get(before, ())]
    if one.interface is not None and not implements(one.path, one.interface):
        absent.append(f"no class of it has a base from {one.interface}")
    elif one.interface is None and one.caller and one.giver and not knows(one.caller, one.giver, imports):
        absent.append(f"neither of {one.caller} and {one.giver} imports the other")
    return f"step {one.number}, {one.path}: " + "; ".join(absent) if absent else None


def links(one: Step) -> list[tuple[str, str]]:
    """Return the imports that a step needs, without those that may be one way or the other."""
    if one.caller is None:
        return [("definitions.py", one.path)] if one.outside == "Dagster" else []
    if one.giver is None:
        return [(one.caller, one.path)]
    return [(one.giver, one.path), *([(one.caller, one.interface)] if one.interface else [])]


def implements(path: str, interface: str) -> bool:
    """Whether a class of a file has a base class that the file imports from its interface."""
    tree = ast.parse((ROOT / PACKAGE / path).read_text(encoding="utf-8"))
    taken = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == dotted(interface)]
    names = {alias.name for node in taken for alias in node.names}
    bases = [base for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    return any(isinstance(base, ast.Name) and base.id in names for base in bases)


def knows(first: str, second: str, imports: Graph) -> bool:
    """Whether one of two files imports the other."""
    return dotted(second) in imports[dotted(first)] or dotted(first) in imports[dotted(second)]


def named_after(one: Step) -> bool:
    """Whether a row's text has a word that begins as a word of the file's name does."""
    words = [word.rstrip("s") for word in re.findall(r"[a-z]+", Path(one.path).stem.replace("_", " "))]
    said = re.findall(r"[a-z]+", one.text.lower())
    return any(other.startswith(word[:4]) for word in words for other in said)


def paths_in(document: str) -> list[str]:
    """Return everything in a document's inline code that reads as a path of the repository or as one of our modules."""
    text = re.sub(r"^```.*?^```", "", document, flags=re.MULTILINE | re.DOTALL)
    words = [word for code in _CODE.findall(text) for word in code.split()]
    modules = [word.replace(".", "/") for word in words if _MODULE.fullmatch(word) and not _SUFFIXED.fullmatch(word)]
    return modules + [word for word in words if _SUFFIXED.fullmatch(word) or _FOLDER.fullmatch(word)]


def exists(path: str) -> bool:
    """Whether a path is in the repository, below it or below the package; a module without its suffix, too."""
    tried = (ROOT / path, ROOT / PACKAGE / path, ROOT / f"{path}.py")
    return any(one.exists() for one in tried)


# The tests


def require_none(offenders: list[str]) -> None:
    """Fail with every offender on a line of its own."""
    if offenders:
        pytest.fail("\n".join(offenders), pytrace=False)


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_is_named_exists(document: str) -> None:
    """No reader is sent to a file that is not there."""
    named = paths_in((ROOT / document).read_text(encoding="utf-8"))
    assert len(named) > 20
    require_none([path for path in named if not exists(path)])


def test_a_path_that_is_not_there_is_seen() -> None:
    """The look can fail: a path, a folder and a module."""
    named = paths_in("See `commands/gone.py`, `commands/gone/`, `wal_pipeline.gone` and `wal_pipeline.wal.lsn`.")
    assert [path for path in named if not exists(path)] == ["wal_pipeline/gone", "commands/gone.py", "commands/gone/"]


@pytest.mark.parametrize("folder", ["", "orchestration/", "commands/", "stores/", "archive/"])
def test_the_picture_shows_every_room_and_no_other(folder: str) -> None:
    """A folder with folders in it is drawn as a frame, which names all that lies in it."""
    drawn = {name for row in rows()[folder] for name in row}
    assert drawn == set(contents(folder)) - {path.removeprefix(folder) for path in NOT_IN_THE_PICTURE}


def contents(folder: str) -> list[str]:
    """Return the rooms of a folder of the package: ``s3/`` and ``base.py`` for ``stores/``."""
    found = sorted((ROOT / PACKAGE / folder).iterdir())
    return [f"{path.name}/" for path in found if (path / "__init__.py").exists()] + [
        path.name for path in found if path.suffix == ".py" and path.stem not in {"__init__", "__main__"}
    ]


def test_every_folder_with_folders_in_it_is_a_frame() -> None:
    """So that no room is hidden inside another."""
    package = ROOT / PACKAGE
    parents = {path.parent.parent.relative_to(package).as_posix() for path in package.glob("*/*/__init__.py")}
    assert {f"{parent}/" for parent in parents} | {""} == set(rows())


def test_no_exception_of_the_picture_is_out_of_date() -> None:
    """What the picture leaves out is there."""
    assert [path for path in NOT_IN_THE_PICTURE if not exists(path)] == []


@pytest.mark.parametrize("container", [name for name in contracts() if name != PACKAGE] + [PACKAGE])
def test_the_pictures_rows_are_the_contracts_rows(container: str) -> None:
    """From the outside to the inside, as import-linter proves them."""
    folder = container.removeprefix(PACKAGE).removeprefix(".").replace(".", "/")
    drawn = rows()[f"{folder}/" if folder else ""]
    assert [{name.removesuffix("/").removesuffix(".py") for name in row} for row in drawn] == contracts()[container]


def test_the_segment_passes_at_most_eleven_rooms() -> None:
    """From the sensor that sees it to its release from the spool."""
    (walk,) = walks("A WAL segment")
    rooms = list(dict.fromkeys(room(one.path) for one in walk))
    assert len(rooms) <= MOST_ROOMS, rooms
    assert (walk[0].path, walk[-1].path) == ("orchestration/sensors/spool.py", "spool.py")


def test_the_walks_are_numbered_from_one() -> None:
    """Four tables, whose steps are in order; each is called by one before it."""
    assert [[one.number for one in walk] for walk in all_walks()] == [
        list(range(1, len(walk) + 1)) for walk in all_walks()
    ]
    assert len(all_walks()) == len(WALKS) + 1


def test_no_walk_leads_upwards() -> None:
    """Each step lies in its caller's row of the contracts, in the same room, or in a row further in."""
    steps = [one for walk in all_walks() for one in walk if one.caller is not None]
    found = [upward(one.caller, one.path, contracts()) for one in steps if one.caller]
    require_none([reason for reason in found if reason])


@pytest.mark.parametrize(
    ("caller", "callee"),
    [
        ("commands/copies/put.py", "commands/archive_push/run.py"),
        ("spool.py", "commands/archive_push/run.py"),
        ("commands/alerts/deliver.py", "commands/copies/put.py"),
        ("catalog/files.py", "codec/encoder.py"),
    ],
)
def test_a_step_upwards_or_beside_is_seen(caller: str, callee: str) -> None:
    """The look can fail: within the commands, between layers, and between the rooms of one row."""
    assert upward(caller, callee, contracts())


def test_each_step_can_call_the_next(imports: Graph) -> None:
    """By an import, or by an object that the file named in the table makes and hands over."""
    found = [missing_link(one, imports) for walk in all_walks() for one in walk]
    require_none([reason for reason in found if reason])


@pytest.mark.parametrize(
    "row",
    [
        ["2", "`stores/s3/store.py`", "1", "text"],
        ["2", "`stores/s3/store.py`", "1, given by `wiring/stores.py`", "text"],
        ["2", "`stores/s3/store.py`", "1, as `stores/base.py`, given by `wiring/backup.py`", "text"],
        ["2", "`codec/encoder.py`", "1, as `stores/base.py`, given by `wiring/pipeline.py`", "text"],
        ["2", "`orchestration/resource.py`", "Dagster", "text"],
    ],
)
def test_a_step_that_nobody_can_call_is_seen(row: list[str], imports: Graph) -> None:
    """The look can fail: no import, no giver, the wrong giver, the wrong interface, nothing that Dagster knows."""
    imports = {**imports, "wal_pipeline.definitions": frozenset()}
    first = step(["1", "`commands/copies/put.py`", "a person", "text"], [])
    assert missing_link(step(row, [first]), imports)


def test_what_a_person_and_postgresql_call_is_there() -> None:
    """A command of the command line, and the program that the generated ``restore_command`` starts."""
    line = (ROOT / PACKAGE / "commands" / "archive_get" / "restore_command.py").read_text()
    for one in (one for walk in all_walks() for one in walk):
        if one.outside == "a person":
            assert dotted(one.path) in COMMANDS.values()
        elif one.outside == "PostgreSQL":
            assert f'"{dotted(one.path)}"' in line


def test_each_files_name_says_why_it_is_there() -> None:
    """A row's text needs a word of the file's name to say what happens there."""
    require_none([one.path for walk in all_walks() for one in walk if not named_after(one)])


def test_each_invariant_has_a_test_or_says_what_is_missing() -> None:
    """Twelve rows; a row without a test would be a claim."""
    table = section("What always holds, and where it is tested")
    found = re.findall(r"^\| (\d+) \| [^|]+ \| (.+) \|$", table, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, INVARIANTS + 1))
    assert [number for number, tests in found if not re.search(r"`wal_pipeline_tests/[\w/]+\.py`", tests)] == []


def test_the_commits_that_serve_as_examples_exist() -> None:
    """By hash and subject, in a clone with its history."""
    named = _COMMIT.findall(" ".join(CONTRIBUTING.split()))
    assert len(named) >= 5
    log = subprocess.run(
        ["git", "log", "--format=%H %s"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    history = log.stdout.splitlines()
    if len(history) < 100:
        pytest.skip("this checkout has no history")
    known = {(line[:7], line.partition(" ")[2]) for line in history}
    assert [commit for commit in named if commit not in known] == []
