"""The README's lines for a real server, run word for word by another user than the program's, and what is refused."""

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.dagster_instance import clean_environment
from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall, owned_folder

pytestmark = [pytest.mark.integration, pytest.mark.postgres15]

PROJECT = Path(__file__).parents[2]
DEBIAN_PYTHON = Path("/usr/bin/python3")
SUDO = """#!/bin/sh
# What sudo does for the README: the named user, in its home's environment.
[ "$1" = -u ] || exec "$@"
user=$2 home=$(getent passwd "$2" | cut -d: -f6)
shift 2
exec runuser -u "$user" -- env HOME="$home" "$@"
"""
PYTHON = f"""#!/bin/sh
# Debian's, with a pip that installs this clone where no package index can be asked: its dependencies are on PYTHONPATH.
{DEBIAN_PYTHON} "$@" --without-pip && for venv; do :; done && cat > "$venv/bin/pip" <<END
#!/bin/sh
cp -r wal_pipeline "$venv"/lib/python*/site-packages/
printf '#!%s/bin/python\\nfrom wal_pipeline.cli.main import main\\nmain()\\n' "$venv" > "$venv/bin/wal-pipeline"
chmod 755 "$venv/bin/wal-pipeline"
END
chmod 755 "$venv/bin/pip"
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def readme_block() -> str:
    """Return the lines below 'Start with a real server'."""
    part = (PROJECT / "README.md").read_text().partition("## Start with a real server")[2]
    found = re.search(r"```sh\n(.*?)```", part, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def prefix() -> Iterator[Path]:
    """A folder in the place of '/', which everybody may enter."""
    if os.geteuid() != 0 or shutil.which("runuser") is None:
        pytest.skip("only root can act for another user")
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("there is no user 'postgres'")
    folder = owned_folder("readme")
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(postgres15: PostgresInstall, prefix: Path) -> Iterator[PostgresCluster]:
    """Debian's server, which takes a user of this machine for the role of the same name."""
    made = PostgresCluster(postgres15, prefix / "cluster", settings={"archive_mode": "on"})
    made.initdb(wal_segment_size_mb=1)
    (made.pgdata / "pg_hba.conf").write_text(
        "local all all peer\nlocal replication all peer\nhost all all 127.0.0.1/32 trust\n"
    )
    yield made.start()
    made.remove()


@pytest.fixture(scope="module")
def run(prefix: Path, cluster: PostgresCluster) -> Run:
    """Run a script as root, with README's places below the prefix, and its packages from this checkout's."""
    programs = prefix / "programs"
    programs.mkdir()
    store = prefix / "store"
    for name in ("objects", "metadata", "uploads", "temporary"):
        (store / name).mkdir(parents=True)
    subprocess.run(["chown", "-R", "postgres:", str(store)], check=True)
    settings = {
        "WAL_PIPELINE_STORES": "local",
        "WAL_PIPELINE_LOCAL_STORE_FOLDER": str(store),
        "WAL_PIPELINE_STATE_DIR": str(prefix / "state"),
        "PG_WAL_ARCHIVE_DIR": str(prefix / "cluster" / "spool"),
        "PGDATA": str(cluster.pgdata),
        "PGHOST": str(cluster.socket_folder),
        "PGPORT": str(cluster.port),
        "PGBINDIR": str(cluster.install.bin_folder),
    }
    (prefix / "state").mkdir()
    shutil.chown(prefix / "state", "postgres", "postgres")
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    scripts = {
        "sudo": SUDO,
        "editor": f"#!/bin/sh\ncat > \"$1\" <<'END'\n{lines}END\n",
        "apt-get": "#!/bin/sh\nexit 0\n",
        "python3": PYTHON,
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    source = _open_copy(prefix)
    environment = {
        **clean_environment(),
        "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(_open_packages(prefix)),
    }

    def run(script: str, cwd: Path = source) -> "subprocess.CompletedProcess[str]":
        moved = re.sub(r"(?<=\s)/(opt|etc)/", rf"{prefix}/\1/", script)
        return subprocess.run(
            ["bash", "-c", moved], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
        )

    (prefix / "opt").mkdir()
    (prefix / "etc").mkdir()
    return run


@pytest.fixture(scope="module")
def installed(run: Run) -> "subprocess.CompletedProcess[str]":
    """The README's block was run."""
    return run(readme_block())


def _open_copy(prefix: Path) -> Path:
    """Return a clone of this checkout in which pip may build."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    source = prefix / "clone"
    for name in names.decode().split("\0"):
        if name.startswith(("wal_pipeline/", "pyproject", "README", "LICENSE", ".env.example")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, source / name)
    return source


def _open_packages(prefix: Path) -> Path:
    """Return this interpreter's packages without this project itself, for Debian's Python of the same version."""
    said = subprocess.run([str(DEBIAN_PYTHON), "--version"], capture_output=True, text=True, check=False).stdout
    if sysconfig.get_python_version() not in said:
        pytest.skip("Debian's Python is of another version than the tests'")
    packages = prefix / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "wal_pipeline" not in path.name and not path.name.endswith(".pth"):
            (packages / path.name).symlink_to(path)
    return packages


def test_the_lines_of_the_readme_do_not_end_in_a_refusal(
    installed: "subprocess.CompletedProcess[str]", prefix: Path
) -> None:
    """A server is set up, proved, checked and backed up, and status says to which moment it can be recovered."""
    said = installed.stdout + installed.stderr
    assert installed.returncode == 0, said
    assert re.search(r"^Proved: segment \w+ was archived after .* and is on local after", said, re.MULTILINE), said
    assert re.search(r"^full base backup \w+-\w+: [\d.]+ MiB, [\d.]+ MiB stored, ", said, re.MULTILINE), said
    assert re.search(r"^main can be recovered to .* UTC from local", said, re.MULTILINE), said
    assert re.search(r"^failed {2,}", said, re.MULTILINE) is None, said
    assert (prefix / "etc/wal-pipeline/stores.env").stat().st_mode & 0o777 == 0o600


def test_root_is_told_the_line_that_postgres_types(
    installed: "subprocess.CompletedProcess[str]", run: Run, prefix: Path
) -> None:
    """The server takes root for the role 'root', which it does not have."""
    assert installed.returncode == 0
    command = f"{prefix}/opt/wal-pipeline/bin/wal-pipeline --env-file {prefix}/etc/wal-pipeline/stores.env setup"
    refused = run(f"cd / && {command}")
    assert refused.returncode == 1
    assert 'role "root" does not exist' in refused.stderr
    assert f"As the server's user: sudo -u postgres {command}\n" in refused.stderr
    again = run(f"cd / && {refused.stderr.rpartition('server' + chr(39) + 's user: ')[2]}")
    assert again.returncode == 0, again.stdout + again.stderr


def test_settings_below_a_closed_home_are_told_with_the_folder_and_the_line(
    installed: "subprocess.CompletedProcess[str]", run: Run, prefix: Path
) -> None:
    """Also the file that is looked for in the current folder; the line that is told mends it."""
    assert installed.returncode == 0
    home = prefix / "home"
    home.mkdir(mode=0o700)
    shutil.copy(prefix / "etc/wal-pipeline/stores.env", home / ".env")
    program = f"sudo -u postgres {prefix}/opt/wal-pipeline/bin/wal-pipeline"
    here = run(f"{program} status", cwd=home)
    assert (here.returncode, here.stdout) == (1, "")
    assert here.stderr.startswith(
        f"ERROR: user 'postgres' cannot look for settings in the current folder, '{home}'\nHINT: Change into another"
    )
    named = run(f"cd / && {program} --env-file {home}/.env status")
    assert named.stderr.startswith(f"ERROR: settings file '{home}/.env' cannot be read by user 'postgres'\n")
    assert f"User 'postgres' may not enter '{home}'" in named.stderr
    line = named.stderr.rpartition("Better keep it in /etc: ")[2].strip()
    assert line == f"sudo install -D -o postgres -m 0600 {shlex.quote(str(home / '.env'))} /etc/wal-pipeline/stores.env"
    assert run(line).returncode == 0
    (home / ".env").chmod(0o600)
    home.chmod(0o755)
    closed = run(f"cd / && {program} --env-file {home}/.env status")
    assert closed.stderr.endswith(f"Type: sudo chown postgres {home}/.env\n")
    assert run(f"sudo chown postgres {home}/.env && cd / && {program} --env-file {home}/.env status").returncode == 0


def test_a_plan_shows_that_the_servers_user_cannot_run_the_program(
    installed: "subprocess.CompletedProcess[str]", run: Run, prefix: Path
) -> None:
    """A program below a closed home: the plan names the folder and the line, and nothing is begun without it."""
    assert installed.returncode == 0
    home = prefix / "closed"
    home.mkdir(mode=0o700)
    settings = f"{prefix}/etc/wal-pipeline/stores.env"
    made = run(f"python3 -m venv {home}/venv && {home}/venv/bin/pip install .")
    assert made.returncode == 0, made.stderr
    words = f"{home}/venv/bin/wal-pipeline --env-file {settings} restore --pgdata {prefix}/new --no-archiving"
    planned = run(f"cd / && {words} --plan")
    assert planned.returncode == 0, planned.stderr
    [refusal] = [line for line in planned.stdout.splitlines() if line.startswith("  will refuse ")]
    assert "the user 'postgres' cannot run" in refusal
    assert f"User 'postgres' may not enter '{home}'" in refusal
    assert refusal.endswith(f"sudo chmod o+x {home}")
    refused = run(f"cd / && {words}")
    assert refused.returncode == 1
    assert f"sudo chmod o+x {home}" in refused.stderr
    assert not (prefix / "new").exists()
    opened = run(f"cd / && sudo chmod o+x {home} && {words} --plan")
    assert "will refuse" not in opened.stdout, opened.stdout
