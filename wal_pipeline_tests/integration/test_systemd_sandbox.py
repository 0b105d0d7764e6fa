"""The systemd units' sandbox, its mounts imitated: what the documented steps write can be written in it.

``ProtectSystem=strict`` makes all of the file system read-only but ``ReadWritePaths``. Needs root, ``unshare``, and the
right to mount, which many containers do not give: without them these tests are skipped, and say why.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal_pipeline_tests.support.segments import SYSTEM_IDENTIFIER, spool_segments

PROJECT = Path(__file__).parents[2]
UNITS = [PROJECT / "deploy" / "systemd" / f"wal-pipeline-{name}.service" for name in ("code", "worker")]
pytestmark = pytest.mark.integration


def read_write_paths(text: str) -> list[str]:
    """The folders of a unit or a drop-in file, without their '-'."""
    lines = re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE)
    return [word.removeprefix("-") for line in lines for word in shlex.split(line)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that no unit hides, with a spool, a quarantine, a state folder and a local store."""
    if not os.access("/opt", os.W_OK):
        pytest.skip("this user may not write in /opt, and the units hide temporary folders")
    with tempfile.TemporaryDirectory(dir="/opt") as made:
        for name in ("spool", "quarantine", "state", *(f"store/{one}" for one in _STORE)):
            (Path(made) / name).mkdir(parents=True)
        (Path(made) / "stores.env").write_text(
            f"PG_WAL_ARCHIVE_DIR={made}/spool\nWAL_PIPELINE_QUARANTINE_FOLDER={made}/quarantine\n"
            f"WAL_PIPELINE_STATE_DIR={made}/state\nWAL_PIPELINE_STORES=local\n"
            f"WAL_PIPELINE_LOCAL_STORE_FOLDER={made}/store\nWAL_PIPELINE_SYSTEM_IDENTIFIER={SYSTEM_IDENTIFIER}\n"
        )
        spool_segments(Path(made) / "spool", [1, 2])
        yield Path(made)


@pytest.fixture
def sandbox(folder: Path) -> Path:
    """The folder, where a unit's mounts can be imitated."""
    reason = missing_for_mounts(folder)
    if reason is not None:
        pytest.skip(f"a unit's mounts cannot be imitated: {reason}")
    return folder


def missing_for_mounts(folder: Path) -> str | None:
    """Try the very mounts of a sandbox, and return why they cannot be made."""
    if os.geteuid() != 0:
        return "this is not root"
    lacking = [name for name in ("unshare", "findmnt", "mount") if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    done = mounted(folder, [str(folder)], "true")
    return None if done.returncode == 0 else done.stderr.strip() or f"unshare ended with {done.returncode}"


_STORE = ("metadata", "uploads", "temporary", "objects")


def command(folder: Path, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("wal-pipeline")), "--env-file", str(folder / "stores.env"), *words]


def in_sandbox(folder: Path, writable: list[str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run ``wal-pipeline`` where only these folders can be written; root cannot write to the others either."""
    done = mounted(folder, writable, f"exec {shlex.join(command(folder, *words))}")
    assert "mount:" not in done.stderr, done.stderr
    return done


def mounted(folder: Path, writable: list[str], line: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell line below mounts of its own: all is read-only but the writable folders."""
    mounts = ["findmnt", "--noheadings", "--output", "TARGET", "--target", str(folder)]
    own_mount = subprocess.run(mounts, capture_output=True, text=True, check=True).stdout.strip()
    there = [path for path in writable if Path(path).exists()]
    lines = [
        "mount --make-rprivate /",
        *(f"mount --bind {shlex.quote(path)} {shlex.quote(path)}" for path in there),
        *(f"mount -o remount,bind,ro {shlex.quote(mount)}" for mount in dict.fromkeys(["/", own_mount])),
        *(f"mount -o remount,bind,rw {shlex.quote(path)}" for path in there),
        f"cd {shlex.quote(str(PROJECT))}",
        line,
    ]
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_the_spool_does_not_stay_full_in_a_unit_with_the_drop_in_that_setup_prints(sandbox: Path) -> None:
    """Copies were stored, and nothing ever left the spool."""
    printed = subprocess.run(
        command(sandbox, "setup", "--print-systemd"), capture_output=True, text=True, check=True, timeout=60
    ).stdout
    writable = [path for unit in UNITS[:1] for path in read_write_paths(unit.read_text() + printed)]
    done = in_sandbox(sandbox, writable, "archive", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["released"] == 2
    assert sorted(path.name for path in (sandbox / "spool").iterdir() if path.name.startswith("0")) == []


def test_a_read_only_mount_is_not_told_as_missing_rights(sandbox: Path) -> None:
    """'usermod' helps nobody whose unit lacks the folder."""
    writable = [str(sandbox / "state"), str(sandbox / "store")]
    done = in_sandbox(sandbox, writable, "archive")
    assert done.returncode == 1
    assert "Read-only file system" in done.stdout + done.stderr
    done = in_sandbox(sandbox, writable, "check")
    said = " ".join((done.stdout + done.stderr).split())
    assert f"'{sandbox / 'spool'}' is on a file system that is mounted read-only for this process" in said
    assert "ReadWritePaths" in said
    assert "usermod" not in said


def test_a_catalog_or_a_store_that_the_unit_may_not_write_is_not_passed_over(sandbox: Path) -> None:
    """The hint names the unit, and no owner."""
    done = in_sandbox(sandbox, [str(sandbox / "spool"), str(sandbox / "store")], "archive")
    assert "ReadWritePaths" in done.stderr
    done = in_sandbox(sandbox, [str(sandbox / "spool"), str(sandbox / "state")], "check", "--json")
    [written] = [item for item in json.loads(done.stdout)["items"] if item["name"] == "local: write"]
    assert "ReadWritePaths" in written["hint"]


def test_the_units_and_the_example_do_not_name_different_spools() -> None:
    """Whoever copies .env.example as it is has a spool that the units can empty, and that systemd-tmpfiles makes."""
    example = re.search(r"^PG_WAL_ARCHIVE_DIR=(.*)$", (PROJECT / ".env.example").read_text(), re.MULTILINE)
    assert example is not None
    made = (PROJECT / "deploy" / "systemd" / "wal-pipeline.tmpfiles.conf").read_text()
    for unit in UNITS:
        paths = read_write_paths(unit.read_text())
        for path in (example[1], f"{example[1]}-quarantine", "/var/lib/wal-pipeline"):
            assert path in paths
            assert re.search(rf"^d {re.escape(path)} +0", made, re.MULTILINE)


def test_systemd_does_not_refuse_a_unit_with_the_drop_in(folder: Path, tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds nothing wrong."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed: apt-get install -y systemd")
    printed = subprocess.run(
        command(folder, "setup", "--print-systemd"), capture_output=True, text=True, check=True, timeout=60
    ).stdout
    for unit in UNITS:
        placed = tmp_path / unit.name
        placed.write_text(unit.read_text().replace("/opt/wal-pipeline/bin", str(Path(sys.executable).parent)))
        (tmp_path / f"{unit.name}.d").mkdir()
        (tmp_path / f"{unit.name}.d" / "folders.conf").write_text(printed)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(placed)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )
        assert [line for line in done.stderr.splitlines() if "wal-pipeline" in line or "folders.conf" in line] == []
