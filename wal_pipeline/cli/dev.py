"""``wal-pipeline dev`` runs Dagster's daemon and web server in this terminal, with these settings."""

import os
import shutil
import sys
from pathlib import Path

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line

_PACKAGE = Path(__file__).parents[1]


@click.command("dev")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the web server listens. It has no login.")
@click.option("--port", default=3000, show_default=True, help="The web server's port.")
@pass_context
def dev_command(context: Context, host: str, port: int) -> None:
    """Run Dagster until Ctrl-C: the sensor archives, and the UI shows it.

    Records are kept in DAGSTER_HOME, by default a folder beside the state; it is made where it does not exist.
    For a server that stays up, run the daemon and the web server as services: see deploy/.
    """
    settings = context.pipeline.settings  # a faulty setting shows here, not in a sensor's first tick
    home = Path(os.environ.get("DAGSTER_HOME") or settings.state_folder / "dagster").absolute()
    prepare_home(home)
    print_line(f"Dagster's records are in {home}; the UI will be at http://{host}:{port}", err=True)
    environment = {**os.environ, "DAGSTER_HOME": str(home), **_env_file_variable()}
    sys.stderr.flush()
    os.execve(sys.executable, dagster_command(host, port), environment)  # noqa: S606 - no shell is wanted


def prepare_home(home: Path) -> None:
    """Make Dagster's home with our dagster.yaml; a dagster.yaml that is there stays as it is."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(_PACKAGE / "dagster.yaml", home / "dagster.yaml")


def dagster_command(host: str, port: int) -> list[str]:
    """Return the command line of ``dagster dev``."""
    workspace = str(_PACKAGE / "workspace.yaml")
    return [sys.executable, "-m", "dagster", "dev", "-h", host, "-p", str(port), "-w", workspace]


def _env_file_variable() -> dict[str, str]:
    """Return the variable that passes ``--env-file`` on to the processes that Dagster starts."""
    env_file = click.get_current_context().find_root().params.get("env_file")
    return {} if env_file is None else {"WAL_PIPELINE_ENV_FILE": str(Path(env_file).absolute())}
