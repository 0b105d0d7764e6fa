"""``wal-pipeline restore``: bring a cluster back to a chosen moment, from the stores alone."""

from pathlib import Path
from typing import Any

import click

from wal_pipeline.cli.group import Context, pass_context

_FOLDER = click.Path(path_type=Path, file_okay=False, readable=False)  # the plan says what is missing


def _pairs(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, Path]:
    return dict(_pair(text) for text in texts)


def _pair(text: str) -> tuple[str, Path]:
    old, separator, new = text.partition("=")
    if not separator or not new.startswith("/"):
        raise click.UsageError(f"'{text}' does not map a tablespace, expected such as 16384=/new/folder.")
    return old, Path(new)


def _settings(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    return dict(_setting(text) for text in texts)


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.replace("_", "").replace(".", "").isalnum():
        raise click.UsageError(f"'{text}' is not a server setting, expected such as port=5433.")
    return name, value


def _unless(_context: click.Context, _option: click.Parameter, given: bool) -> bool:
    return not given


@click.command("restore")
@click.option("--pgdata", type=_FOLDER, help="The data directory to restore into (default: the setting PGDATA).")
@click.option("--to-time", metavar="TIME", help="Up to this moment, with its zone: '2026-11-22 17:45:00+00'.")
@click.option("--to-lsn", metavar="LSN", help="Up to this LSN.")
@click.option("--to-xid", type=int, metavar="XID", help="Up to this transaction.")
@click.option("--to-name", metavar="NAME", help="Up to this named restore point.")
@click.option("--immediate", is_flag=True, help="Only until the base backup is consistent.")
@click.option("--inclusive/--exclusive", default=True, help="Just after the target (default), or just before it.")
@click.option(
    "--timeline", default="latest", metavar="latest|current|N", show_default=True, help="Along this timeline."
)
@click.option("--store", default="any", metavar="any|r2|b2", show_default=True, help="Use only this store.")
@click.option(
    "--action",
    type=click.Choice(["promote", "pause", "shutdown"]),
    default="promote",
    show_default=True,
    help="What the server does at the target.",
)
@click.option("--base-backup", metavar="ID", help="Begin from this base backup (default: the newest that will do).")
@click.option("--system-identifier", type=int, help="Which cluster, where the stores know several under one name.")
@click.option(
    "--tablespace-map",
    "tablespaces",
    multiple=True,
    callback=_pairs,
    metavar="OID|OLD=NEW",
    help="Put a tablespace elsewhere.",
)
@click.option(
    "--tablespace-map-all",
    type=_FOLDER,
    help="Put every tablespace that is not mapped below this folder, each into one named by its OID.",
)
@click.option("--force", is_flag=True, help="Remove the old cluster that lies in the data directory.")
@click.option(
    "--delta",
    is_flag=True,
    help="Keep the files of the old cluster in the data directory that are right already, and fetch only the others. "
    "Needs no --force where the directory is this cluster's.",
)
@click.option("--owner", metavar="USER", help="As root: give the files to this user (default: the folder's owner).")
@click.option(
    "--archiving/--no-archiving",
    default=None,
    help="The restored server takes its original's place and archives, or it is a copy beside it, set apart from it. "
    "Asked for where the original may still live.",
)
@click.option(
    "--no-verify",
    "verify",
    is_flag=True,
    callback=_unless,
    help="Do not compare the restored files with PostgreSQL's manifest before the end.",
)
@click.option(
    "--verify-with",
    type=click.Choice(["own", "postgres"]),
    default="own",
    show_default=True,
    help="Compare them with this program, on all cores, or with pg_verifybackup as a second opinion.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Files at the same time (default: the cores).")
@click.option(
    "--prefetch-dir",
    type=_FOLDER,
    help="Keep WAL that is fetched ahead here (default: beside PGDATA; in pg_wal where PGDATA is a mount point).",
)
@click.option("--waldir", type=_FOLDER, help="Make pg_wal a link to this folder, such as one on a disk of its own.")
@click.option(
    "--work-dir", type=_FOLDER, help="Keep what is downloaded here until it is opened (default: in PGDATA itself)."
)
@click.option(
    "--restore-config/--no-restore-config",
    default=None,
    help="Write the configuration files that the original kept outside PGDATA into it (default: where this machine has "
    "none for it).",
)
@click.option(
    "--only-database",
    "only_databases",
    multiple=True,
    metavar="NAME",
    help="Bring back only this database, several times for several; the others are neither fetched nor kept. Makes a "
    "copy.",
)
@click.option("--standby", is_flag=True, help="Make a standby, which follows its primary and the stores.")
@click.option(
    "--primary-conninfo",
    metavar="CONNINFO",
    help="With --standby: stream from this server. No password here: WAL_PIPELINE_PRIMARY_CONNINFO, or passfile=/path.",
)
@click.option("--slot", metavar="NAME", help="With --standby: the replication slot on the primary that keeps its WAL.")
@click.option(
    "--wal-only",
    is_flag=True,
    help="The data directory is there, and stays as it is: only its recovery is set up, with WAL from the stores.",
)
@click.option("--start", is_flag=True, help="Start the server and wait until it reaches the target.")
@click.option(
    "--config-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The server's postgresql.conf."
)
@click.option(
    "--set",
    "server_settings",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="With --start: a setting until the next restart.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
@click.pass_context
def restore_command(ctx: click.Context, context: Context, /, *, as_json: bool, **options: Any) -> int:
    """Restore the cluster to a chosen moment, by default to the end of the archive.

    Needs only the stores' credentials and the cluster's name: neither Dagster nor the catalog. The plan, which --plan
    prints alone, ends with all that the restore will refuse.
    """
    from wal_pipeline.archive.recovery.target_text import TargetTextError
    from wal_pipeline.cli.restore_progress import RestoreScreen
    from wal_pipeline.cli.time_readings import refuse_ambiguous
    from wal_pipeline.commands.restore.options import RestoreOptionError, RestoreOptions
    from wal_pipeline.commands.restore.standby.request import StandbyOptionError
    from wal_pipeline.wiring.restore import restore_of

    if options["to_time"] is not None:
        refuse_ambiguous("--to-time", options["to_time"], context.pipeline.clock())
    try:
        restore = restore_of(
            context.pipeline, RestoreOptions(**options), env_file=ctx.find_root().params.get("env_file")
        )
    except (RestoreOptionError, StandbyOptionError, TargetTextError) as error:
        raise click.UsageError(str(error)) from None
    screen = RestoreScreen(restore.layout.cluster, plan_only=options["plan_only"], as_json=as_json)
    with screen:
        restore.run(screen)
    return 0
