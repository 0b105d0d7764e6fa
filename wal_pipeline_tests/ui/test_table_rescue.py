"""Tests that somebody who has never seen it finds in the UI who deleted rows, and brings them back."""

import json
import re
from typing import Any

import pytest
import yaml

from testbed.dagster_instance import DagsterInstance
from wal_pipeline_tests.support.ui.browser import Screen
from wal_pipeline_tests.support.ui.cluster import WatchedCluster
from wal_pipeline_tests.support.ui.history import run_status, wait, wait_shipped

pytestmark = pytest.mark.ui
Shop = tuple[WatchedCluster, DagsterInstance]
LAUNCHPAD = "/locations/wal_pipeline/jobs/{job}/playground"
FIELDS = {
    "find_transactions": ("dropping: false", "from: ", "limit: ", "to: latest", "from and to are moments"),
    "clone_cluster": (
        "action: make",
        "for: 2h",
        "name: ",
        "read_only: false",
        "to_time: latest",
        "action is make, move",
    ),
    "rescue_tables": ("before_xid: 0", "into: ", "plan_only: false", "tables:", "before_xid is the transaction"),
}
ROWS = 4000


@pytest.fixture(scope="module")
def accident(shop: Shop) -> Shop:
    """Somebody deletes all rows of a table, and the shop goes on."""
    cluster, dagster = shop
    cluster.server.psql(f"INSERT INTO orders (at) SELECT now() FROM generate_series(1, {ROWS})")  # noqa: S608 - a number
    cluster.commit(3)
    cluster.server.psql("DELETE FROM orders")
    cluster.commit(3)
    wait_shipped(cluster, dagster)
    return shop


@pytest.mark.parametrize("job", FIELDS)
def test_no_form_begins_with_what_nobody_needs(screen: Screen, job: str) -> None:
    """The text has the few fields of an emergency, then what they take; it has no errors."""
    screen.forget()
    screen.open(LAUNCHPAD.format(job=job), "Launch Run", "No errors")
    screen.assert_order(*FIELDS[job][:-1], "what_they_take", FIELDS[job][-1])
    if job == "rescue_tables":
        screen.picture("launchpad-rescue")


def test_who_did_it_is_not_hidden_and_what_to_start_is_there_to_copy(screen: Screen, accident: Shop) -> None:
    """An empty click looks at the last hour; what the page shows is launched as it stands, and the rows are back."""
    cluster, dagster = accident
    find(screen, dagster)
    screen.open("/assets/shop/found_transactions", "Timestamp")
    rows = screen.metadata()
    first, second = list(rows)[:2]
    assert re.match(r"look at transaction \d+ first, of .*: of all it deleted and updated most rows: ", rows[first])
    assert second == "to bring the table back"
    screen.picture("found-transactions")
    config = shown_config(rows[second])
    assert config["ops"]["rescue"]["config"]["tables"] == ["public.orders"]
    screen.launch(LAUNCHPAD.format(job="rescue_tables"), json.dumps(config))
    ended(screen, dagster)
    screen.open("/assets/shop/rescued_tables", "Timestamp")
    back = screen.metadata()
    assert re.match(
        rf"{ROWS + 6:,} rows of 1 table of database 'postgres' are back, as counted", next(iter(back.values()))
    )
    screen.picture("rescued-tables")
    into = re.search(r"rescued_\w+\.orders", back["tables"])
    assert into is not None
    assert cluster.server.value(f"SELECT count(*) FROM {into[0]}") == str(ROWS + 6)  # noqa: S608 - a name
    wait_shipped(cluster, dagster)


def find(screen: Screen, dagster: DagsterInstance) -> None:
    """Launch the search as the form begins."""
    screen.forget()
    screen.open(LAUNCHPAD.format(job="find_transactions"), "No errors")
    screen.click("Launch Run")
    screen.page.wait_for_url("**/runs/**")
    ended(screen, dagster)


def ended(screen: Screen, dagster: DagsterInstance) -> None:
    """Wait until the run that the page shows has succeeded."""
    run_id = screen.page.url.split("/runs/")[1].split("?")[0]
    wait(dagster, lambda: run_status(dagster, run_id) in ("SUCCESS", "FAILURE", "CANCELED"))
    assert run_status(dagster, run_id) == "SUCCESS", screen.text


def shown_config(text: str) -> dict[str, Any]:
    """Return the configuration that a row shows."""
    config: dict[str, Any] = yaml.safe_load(text[text.index("ops:") :])
    return config
