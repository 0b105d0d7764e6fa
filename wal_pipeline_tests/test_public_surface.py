"""What a user relies on stays as it is: names, options, defaults, exit codes, keys, forms and published paths.

``public_surface.json`` says how it was. A change of it is meant for users, and stands in the changelog:
``python -m wal_pipeline_tests.support.public_surface --write`` writes it anew.
"""

import json
from difflib import unified_diff

import pytest

from wal_pipeline_tests.support.public_surface import GOLDEN, Surface
from wal_pipeline_tests.support.surface.text import pretty

ON_PURPOSE = "If users shall have it so: python -m wal_pipeline_tests.support.public_surface --write"
WANTED = json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Surface:
    """What the code has now; a section is looked up when it is asked for."""
    return Surface(tmp_path_factory.mktemp("surface"))


@pytest.mark.parametrize("section", WANTED)
def test_what_a_user_relies_on_is_unchanged(surface: Surface, section: str) -> None:
    """Each section of the public surface is, value for value and in its order, what the golden file says."""
    wanted, found = pretty(WANTED[section]).splitlines(), pretty(surface.collect(section)).splitlines()
    difference = "\n".join(unified_diff(wanted, found, "relied on", "found now", n=4, lineterm=""))
    if difference:
        pytest.fail(f"'{section}' is not what users rely on:\n{difference}\n{ON_PURPOSE}", pytrace=False)


def test_every_section_is_compared(surface: Surface) -> None:
    """No section is left out of the golden file, so none goes unwatched."""
    assert list(surface.sections) == list(WANTED)
