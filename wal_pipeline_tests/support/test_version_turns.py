"""Tests that no test is lost between 'make test' and 'make versions'."""

import subprocess
import sys
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline_tests.support.version_turns import Versions, left_to_others

_NAMES = st.tuples(st.sampled_from(["a.py", "b.py"]), st.sampled_from(["test_x", "test_y[z]", "test_z"]))
_PARAMETERS = st.sampled_from(["", "[1]", "[postgres15]", "[postgres18]", "[postgres15-1MB]", "[postgres18-1MB]"])
_ROOT = Path(__file__).parents[2]
_FILES = [f"wal_pipeline_tests/postgres/test_{name}.py" for name in ("isolation", "control_file", "server")]
_COLLECT = """
import sys, pytest
from wal_pipeline_tests.support.version_turns import Versions
for one in Versions:
    print(f"versions: {one}")
    pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", f"--versions={one}", *sys.argv[1:]])
"""
_TESTS = st.lists(st.builds(lambda name, rest: "::".join(name) + rest, _NAMES, _PARAMETERS), unique=True)


def test_the_versions_take_turns() -> None:
    """Each file is played with each version, and no test with both."""
    tests = [f"a.py::test_{name}[postgres{version}]" for name in "abc" for version in (18, 15)]
    assert left_to_others(tests, ()) == {
        "a.py::test_a[postgres15]",
        "a.py::test_b[postgres18]",
        "a.py::test_c[postgres15]",
    }


def test_parameters_take_turns_too() -> None:
    """Of one test with two more parameters, each version plays one."""
    tests = [f"a.py::test_a[postgres{version}-{size}MB]" for version in (18, 15) for size in (1, 2)]
    assert left_to_others(tests, ()) == {"a.py::test_a[postgres15-1MB]", "a.py::test_a[postgres18-2MB]"}


def test_what_each_version_must_play_is_not_left_out() -> None:
    """A marked test is played with both versions, and takes no turn."""
    both = {"a.py::test_a[postgres15]", "a.py::test_a[postgres18]"}
    tests = [*both, "a.py::test_b[postgres18]", "a.py::test_b[postgres15]"]
    assert left_to_others(tests, both) == {"a.py::test_b[postgres15]"}


def test_a_story_is_told_with_one_version() -> None:
    """Its tests build on each other, and two files do not all take the same version."""
    files = {
        name: [f"{name}::test_{test}[postgres{version}]" for test in "abc" for version in (18, 15)]
        for name in (f"{number}.py" for number in range(20))
    }
    kept = [set(tests) - left_to_others(tests, (), tests) for tests in files.values()]
    versions = [{test.rpartition("[")[2] for test in tests} for tests in kept]
    assert {len(one) for one in versions} == {1}
    assert set.union(*versions) == {"postgres15]", "postgres18]"}


@given(_TESTS, st.randoms())
def test_one_of_each_family_stays(tests: list[str], random: Random) -> None:
    """Some test of each family stays, whatever the order, and one without a twin always does."""
    left = left_to_others(tests, ())
    shuffled = list(tests)
    random.shuffle(shuffled)
    assert left_to_others(shuffled, ()) == left
    stays = {test.replace("postgres15", "postgres18") for test in set(tests) - left}
    assert stays == {test.replace("postgres15", "postgres18") for test in tests}


def test_the_two_runs_together_are_all_tests() -> None:
    """'make test' and 'make versions' share no test, and leave none out; a marked test is in 'make test' with both."""
    lines = subprocess.run(
        [sys.executable, "-c", _COLLECT, *_FILES], capture_output=True, text=True, check=True, cwd=_ROOT
    ).stdout.splitlines()
    begins = [lines.index(f"versions: {one}") for one in Versions]
    each, turns, others = (
        {line for line in lines[begin:end] if "::" in line}
        for begin, end in zip(begins, [*begins[1:], None], strict=True)
    )
    assert (turns & others, turns | others) == (set(), each)
    assert {test for test in each if "postgres" in test.partition("[")[2]} > others > set()
    assert {test for test in each if "test_isolation.py" in test} <= turns
