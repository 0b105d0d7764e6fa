"""Tests that a planted secret is found in each form and place; else its absence would prove nothing."""

import base64
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from wal_pipeline_tests.support.secret_search import Finding, ProcessWatch, SecretSearch

VALUE = "s3cr3t/of+a=planted&value'9"
SEARCH = SecretSearch({"planted": VALUE})


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        json.dumps({"key": VALUE}),
        json.dumps({"key": VALUE}).replace("/", "\\/"),
        "postgresql://me:" + quote(VALUE, safe="") + "@db/catalog",
        "https://hook/" + quote(VALUE),
        "password='" + VALUE.replace("'", "\\'") + "'",
        *(base64.b64encode((before + VALUE + ":tail").encode()).decode() for before in ("", "u", "us", "user:")),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
    ],
)
def test_each_form_is_found(tmp_path: Path, text: str) -> None:
    """Plain, in JSON, in a URL, in a connection string and in base64, wherever it begins there."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run.log").write_text(f"before {text} after")
    assert SEARCH.in_files([tmp_path]) == [Finding("planted", str(tmp_path / "deep" / "run.log"))]


def test_a_value_that_sqlite_parts_is_found(tmp_path: Path) -> None:
    """A long text lies in overflow pages, each with a header in the middle of the text."""
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE events (body TEXT)")
        connection.execute("INSERT INTO events VALUES (?)", ["x" * 3000 + (VALUE + "-") * 60])
        connection.execute("INSERT INTO events VALUES (?)", [b"\xff" + b"y" * 9000])
        connection.commit()
    assert SEARCH.in_files([tmp_path]) == [Finding("planted", str(path))]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    """Half of a value and links are no finding."""
    (tmp_path / "log").write_text(VALUE[:-2])
    (tmp_path / "link").symlink_to("/proc/self/environ")
    assert SEARCH.in_files([tmp_path]) == []


def test_a_command_line_is_seen() -> None:
    """A process that has the value as an argument is seen while it runs."""
    with ProcessWatch(SEARCH) as watch:
        child = subprocess.Popen([sys.executable, "-c", "input()", "--password=" + VALUE], stdin=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while not watch.findings and time.monotonic() < deadline:
            time.sleep(0.01)
        child.communicate(b"\n")
    assert {finding.secret for finding in watch.findings} == {"planted"}
    assert watch.saw("--password=")
