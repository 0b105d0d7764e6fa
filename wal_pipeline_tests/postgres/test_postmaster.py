"""Which server runs in a data directory, whatever number its postmaster.pid has."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.postgres.postmaster import find_server, works_in
from wal_pipeline_tests.support.nobody import as_nobody

MakeCluster = Callable[..., PostgresCluster]


@pytest.mark.parametrize("number", ["1", "-1", "0", "", "none", str(2**40), "self", "parent"])
def test_a_number_alone_is_no_server(tmp_path: Path, number: str) -> None:
    """The process that has a dead server's number by now is not this folder's server."""
    numbers = {"self": os.getpid(), "parent": os.getppid()}
    (tmp_path / "postmaster.pid").write_text(f"{numbers.get(number, number)}\n{tmp_path}\n")
    assert find_server(tmp_path) is None


def test_no_folder_has_no_server(tmp_path: Path) -> None:
    """A data directory that is to be made is free."""
    assert find_server(tmp_path / "none") is None


@pytest.mark.integration
def test_a_server_with_a_wrong_pid_file_is_seen(postgres_version: PostgresInstall, make_cluster: MakeCluster) -> None:
    """Its own number, another one as in a container, and none at all: its processes work in the folder."""
    cluster = make_cluster(postgres_version).start()
    pid_file = cluster.pgdata / "postmaster.pid"
    own = pid_file.read_text()
    for text in (own, own.replace(str(cluster.pid), str(os.getpid()), 1), None):
        pid_file.unlink() if text is None else pid_file.write_text(text)
        found = find_server(cluster.pgdata)
        assert found is not None
        assert found.sure
        assert f"runs in '{cluster.pgdata}'" in found.message
    pid_file.write_text(own)
    assert works_in(cluster.pid, cluster.pgdata)
    cluster.kill()
    assert find_server(cluster.pgdata) is None


@pytest.mark.integration
def test_a_server_starts_with_the_pid_file_of_the_dead_that_we_accept(
    postgres_version: PostgresInstall, make_cluster: MakeCluster
) -> None:
    """PostgreSQL judges as we do."""
    cluster = make_cluster(postgres_version)
    (cluster.pgdata / "postmaster.pid").write_text(f"1\n{cluster.pgdata}\n1700000000\n5432\n\n\n")
    assert find_server(cluster.pgdata) is None
    cluster.start()
    assert find_server(cluster.pgdata) is not None


@pytest.mark.integration
def test_a_server_of_another_container_is_not_replaced(
    postgres_version: PostgresInstall, make_cluster: MakeCluster
) -> None:
    """Its processes cannot be seen from here, and the number in its file is our own: its files are open."""
    if os.geteuid() != 0:
        pytest.skip("a process namespace needs root")
    cluster = make_cluster(postgres_version).start()
    look = "\n".join(
        [
            "from pathlib import Path",
            "from wal_pipeline.postgres.postmaster import find_server",
            f"print(find_server(Path({str(cluster.pgdata)!r})))",
        ]
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", look],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no process namespace here: {done.stderr}")
    assert "a process that cannot be seen from here has" in done.stdout, done.stderr


@pytest.mark.integration
def test_a_process_that_cannot_be_looked_at_counts(postgres18: PostgresInstall, make_cluster: MakeCluster) -> None:
    """Another user's server, whose number the file names, may be this folder's: the hint says what to do."""
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    cluster = make_cluster(postgres18).start()
    folder = cluster.folder / "other"
    folder.mkdir(mode=0o755)
    cluster.folder.chmod(0o755)
    (folder / "postmaster.pid").write_text(f"{cluster.pid}\n{folder}\n")

    def look() -> None:
        found = find_server(folder)
        raise RuntimeError("none" if found is None else f"{found.sure} {found.message} {found.hint}")

    told = as_nobody(look)
    assert told.startswith(f"False a server may run in '{folder}'")
    assert "else remove" in told
    assert find_server(folder) is None
