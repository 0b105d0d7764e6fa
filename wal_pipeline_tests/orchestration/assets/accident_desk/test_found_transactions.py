"""Tests what the asset of a search says: the suspect, the rescue's configuration, and what was not searched."""

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest
import yaml

from wal_pipeline.cli.rescue import rescue_command
from wal_pipeline.commands.find.found import FindResult, FoundTransaction, RelationChange, RelationFate
from wal_pipeline.commands.find.suspicion import lines_to_type
from wal_pipeline.commands.rescue.options import RescueOptions
from wal_pipeline.orchestration.assets.accident_desk.found_transactions import (
    found_metadata,
    found_sentence,
    launchpad_text,
)
from wal_pipeline.wal.lsn import Lsn

AT = datetime(2026, 11, 22, 17, 45, tzinfo=UTC)


def change(
    label: str, deleted: int = 0, fate: RelationFate | None = None, database: str | None = "shop"
) -> RelationChange:
    return RelationChange(5, 16384, label, 0, 0, deleted, fate, database)


ONE = FoundTransaction(AT, 900, Lsn(0x3000028), 1, 5000, (change("public.orders", 4000),))
RESULT = FindResult((ONE,), 1, 12, ONE, 32 * 2**20, 2, 0, 0.5, AT, AT, AT, None)


def texts(result: FindResult) -> dict[str, object]:
    return {name: value.value for name, value in found_metadata(result, None).items()}


def test_the_first_row_is_the_suspect_and_the_second_what_to_start() -> None:
    """A person on call reads who did it, and copies the configuration of the rescue."""
    found = texts(RESULT)
    assert list(found)[:5] == [
        "answer",
        "to bring the table back",
        "or in a terminal",
        "to have all as before it",
        "transactions",
    ]
    assert found["answer"] == (
        "look at transaction 900 first, of 2026-11-22 17:45:00Z: of all it deleted and updated most rows: 4,000; "
        "1 transaction of 12 commits from 2026-11-22 17:45:00Z to the end of the archive"
    )
    assert str(found["or in a terminal"]).startswith("wal-pipeline rescue --table public.orders --database shop")
    assert found["looked at"] == "2 segments, 32.0 MiB of WAL in 0.5 s (64.0 MiB/s)"


def test_each_transaction_has_a_row_of_texts() -> None:
    """What is gone comes first, many relations are cut, and a name cannot break the table."""
    changes = (*(change(f"public.t{n}", n) for n in range(5)), change("public.gone\n", fate=RelationFate.DROPPED))
    one = replace(ONE, changes=changes, prepared=True, unseen_begin=True)
    table = found_metadata(replace(RESULT, transactions=(one,)), None)["transactions"]
    assert isinstance(table, dg.TableMetadataValue)
    [row] = [record.data for record in table.records]
    assert row["xid"], row["LSN"] == ("900", "0/3000028")
    assert row["relations"] == (
        "public.gone\\n: dropped; public.t4: 4 deleted; public.t3: 3 deleted; public.t2: 2 deleted; "
        "and 2 relations more; prepared; at least: it began before the WAL that was read"
    )


def test_what_was_not_searched_stands_before_all_else() -> None:
    """An incomplete search says so in its answer."""
    holes = ("segment '000000010000000000000004' is on no store",)
    found = texts(replace(RESULT, holes=holes, notes=("a list could not be read",)))
    assert list(found)[1] == "NOT SEARCHED"
    assert str(found["answer"]).endswith("; INCOMPLETE: some WAL of that time could not be read")
    assert found["notes"] == "- a list could not be read"


def test_a_search_without_a_find_says_so() -> None:
    """No line to type is made up."""
    nothing = replace(RESULT, transactions=(), matching=0, suspect=None)
    assert found_sentence(nothing).startswith("no transaction matches, of 12 commits from")
    assert not {"transactions", "or in a terminal"} & texts(nothing).keys()


@pytest.mark.parametrize(
    "one",
    [
        ONE,
        replace(
            ONE, changes=(change('public."Or der"', 9), change("x.gone", fate=RelationFate.DROPPED, database="a b"))
        ),
        replace(ONE, dropped_databases=("web shop",)),
    ],
)
def test_the_configuration_asks_for_what_the_line_asks_for(one: FoundTransaction) -> None:
    """Each option of the line is there with its value; only a dump's folder is left to fill in."""
    line = lines_to_type(one, 3).rescue
    assert line is not None
    config = yaml.safe_load(launchpad_text(line))["ops"]["rescue"]["config"]
    with rescue_command.make_context("rescue", shlex.split(line)[2:]) as context:
        typed = {name: value for name, value in context.params.items() if name != "as_json"}
    defaults = {name: getattr(RescueOptions(), name) for name in typed}
    asked = {name: value for name, value in typed.items() if value != defaults[name]}
    expected = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    if one.dropped_databases:
        assert expected.pop("output").name == "web shop.dump"
        assert config.pop("output") == "<folder>/web shop.dump"
    assert ("into" in expected) != bool(one.dropped_databases)
    assert config == expected


def test_the_configuration_can_be_copied_from_the_page() -> None:
    """It stands in one block of code."""
    shown = str(texts(RESULT)["to bring the table back"])
    block = re.search(r"```yaml\n(.*)```", shown, re.DOTALL)
    assert block is not None
    assert yaml.safe_load(block[1])["ops"]["rescue"]["config"]["before_xid"] == 900
