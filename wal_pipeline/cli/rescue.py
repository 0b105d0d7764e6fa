"""``wal-pipeline rescue``: bring single tables back, beside the living ones."""

from pathlib import Path
from typing import Any

import click

from wal_pipeline.cli.group import Context, pass_context


@click.command("rescue")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="SCHEMA.TABLE",
    help="The table, with all its partitions; may be given several times. A name with capitals or a dot stands in "
    "quotes: 'sales.\"My.Table\"'.",
)
@click.option("--whole-database", is_flag=True, help="All of --database, such as one that was dropped; with --output.")
@click.option(
    "--database", metavar="NAME", help="The database then (default: the only one that had the tables). It may be gone."
)
@click.option(
    "--before-xid", type=int, metavar="XID", help="Just before this transaction, which 'wal-pipeline find' names."
)
@click.option(
    "--committed-at",
    metavar="TIME",
    help="When that transaction was committed, as 'find' says: a base backup from before it is taken (default: the "
    "newest one).",
)
@click.option("--to-time", metavar="TIME", help="As of this moment, with its zone: '2026-11-22 17:45:00+00'.")
@click.option("--to-xid", type=int, metavar="XID", help="As of this transaction.")
@click.option("--to-lsn", metavar="LSN", help="As of this LSN.")
@click.option("--to-name", metavar="NAME", help="As of this named restore point.")
@click.option("--inclusive/--exclusive", default=True, help="Just after the moment (default), or just before it.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a new dump in custom format, for pg_restore.",
)
@click.option(
    "--into",
    metavar="CONNINFO",
    help="Load into this database, such as dbname=shop, in one transaction. A password belongs into PGPASSWORD or "
    "~/.pgpass. Host and port: as WAL_PIPELINE_CONNINFO has them.",
)
@click.option(
    "--as", "as_schema", metavar="SCHEMA", help="The schema to load into (default: such as rescued_20261129t1755)."
)
@click.option(
    "--timeline", default="latest", metavar="latest|current|N", show_default=True, help="Along this timeline."
)
@click.option("--store", default="any", metavar="any|r2|b2", show_default=True, help="Use only this store.")
@click.option("--base-backup", metavar="ID", help="Begin from this base backup (default: the newest that will do).")
@click.option("--system-identifier", type=int, help="Which cluster, where the stores know several under one name.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The scratch folder, which is made and removed (default: beside that of the drills).",
)
@click.option("--owner", metavar="USER", help="As root: the user who runs the scratch server.")
@click.option("--role", metavar="NAME", help="The cluster's superuser (default: WAL_PIPELINE_DRILL_ROLE, or postgres).")
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_context
def rescue_command(context: Context, /, *, as_json: bool, **options: Any) -> int:
    """Bring tables back as they were, into a dump or beside the living ones; the cluster stays up.

    The cluster is recovered in a scratch folder, the tables are taken out of it with pg_dump, and the folder is
    removed. Exit code 0: the rows were counted there and where they arrived, and the numbers are equal.
    """
    from wal_pipeline.archive.recovery.target_text import TargetTextError
    from wal_pipeline.cli.leaving import leaving_in_order
    from wal_pipeline.cli.rescue_screen import RescueScreen
    from wal_pipeline.cli.time_readings import refuse_ambiguous
    from wal_pipeline.commands.rescue.options import RescueOptions
    from wal_pipeline.commands.rescue.wanted import RescueOptionError
    from wal_pipeline.commands.restore.options import RestoreOptionError
    from wal_pipeline.wiring.rescue import rescue_of

    if options["to_time"] is not None:
        refuse_ambiguous("--to-time", options["to_time"], context.pipeline.clock())
    try:
        rescue = rescue_of(context.pipeline, RescueOptions(**options))
    except (RescueOptionError, RestoreOptionError, TargetTextError) as error:
        raise click.UsageError(str(error)) from None
    screen = RescueScreen(rescue, as_json=as_json)
    with leaving_in_order(), screen:
        rescue.run(screen)
    return 0
