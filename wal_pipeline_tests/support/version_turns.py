"""Divides the tests that exist once for each PostgreSQL version between 'make test' and 'make versions'."""

import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from enum import StrEnum

_VERSION = re.compile(r"\bpostgres(\d+)\b")


class Versions(StrEnum):
    """With which PostgreSQL versions a run plays a test that exists for each."""

    EACH = "each"
    TURNS = "turns"
    """with one, by turns, unless the test has the mark ``each_version``"""
    OTHERS = "others"
    """with those that ``TURNS`` leaves out, and no other test but those with the mark ``left_out``"""


def left_to_others(tests: Iterable[str], each_version: Collection[str], stories: Collection[str] = ()) -> set[str]:
    """Choose the tests that ``TURNS`` leaves out, by their node ids: ``file.py::test[postgres18-True]``.

    Tests whose ids differ by the version alone are a family. In each file the first family keeps its first version,
    the next one its second, and so on, so that a file is played with each version. ``each_version`` holds the node ids
    of tests of which none is left out. ``stories`` holds those of tests that go on where the test before them ended:
    those of one file keep the same version. The choice depends on nothing but a file's tests.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        name, bracket, parameters = test.partition("[")
        if bracket and _VERSION.search(parameters) and test not in each_version:
            families[name + bracket + _VERSION.sub("*", parameters)].append(test)
    turns: dict[str, int] = defaultdict(int)
    left: set[str] = set()
    for family, members in sorted(families.items()):
        if len(members) > 1:
            file = family.partition("::")[0]
            kept = zlib.crc32(file.encode()) if members[0] in stories else turns[file]
            turns[file] += members[0] not in stories
            left.update(
                member for number, member in enumerate(sorted(members, reverse=True)) if number != kept % len(members)
            )
    return left
