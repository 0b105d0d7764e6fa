"""``wal-pipeline restore``: bring a cluster back to a chosen moment, from the stores alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context

if TYPE_CHECKING:
    from wal_pipeline.archive.recovery.target import RecoveryTarget
    from wal_pipeline.commands.restore.perform import RestoreResult
    from wal_pipeline.commands.restore.prepare import PreparedRestore
    from wal_pipeline.commands.restore.start import RecoveryResult
    from wal_pipeline.stores.base import Store
    from wal_pipeline.wiring.pipeline import Pipeline

_FOLDER = click.Path(path_type=Path, file_okay=False)


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
    "--tablespace-map", "tablespaces", multiple=True, metavar="OID|OLD=NEW", help="Put a tablespace elsewhere."
)
@click.option("--force", is_flag=True, help="Remove the old cluster that lies in the data directory.")
@click.option("--owner", metavar="USER", help="As root: give the files to this user (default: the folder's owner).")
@click.option("--no-archiving", is_flag=True, help="The restored server shall not archive: it is a copy.")
@click.option("--no-verify", is_flag=True, help="Do not run pg_verifybackup before the end.")
@click.option("--prefetch-dir", type=_FOLDER, help="Keep WAL that is fetched ahead here (default: beside PGDATA).")
@click.option("--start", is_flag=True, help="Start the server and wait until it reaches the target.")
@click.option(
    "--config-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The server's postgresql.conf."
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="With --start: a setting until the next restart."
)
@click.option("--plan", "only_plan", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def restore_command(ctx: click.Context, /, **options: Any) -> int:
    """Restore the cluster to a chosen moment, by default to the end of the archive.

    Needs only the stores' credentials and the cluster's name: neither Dagster nor the catalog.
    """
    context = ctx.find_object(Context)
    assert context is not None  # noqa: S101
    return _Command(context.pipeline, ctx.find_root().params.get("env_file"), options).run()


class _Command:
    def __init__(self, pipeline: "Pipeline", env_file: Path | None, options: dict[str, Any]) -> None:
        self._pipeline = pipeline
        self._env_file = env_file
        self._options = options

    def run(self) -> int:
        from wal_pipeline.cli.restore_text import plan_text, plan_values, result_text, result_values
        from wal_pipeline.commands.restore.prepare import require_answers
        from wal_pipeline.commands.restore.reached import require_reached

        prepared = self._prepare()
        if not self._options["as_json"]:
            click.echo(plan_text(prepared, self._pipeline.settings.cluster))
        if self._options["only_plan"]:
            if self._options["as_json"]:
                click.echo(json.dumps(plan_values(prepared)))
            return 0
        require_answers(prepared)
        program = self._check_program(prepared)
        result = self._perform(prepared, program)
        recovery = self._start(prepared) if self._options["start"] else None
        values = {**plan_values(prepared), **result_values(result, recovery)}
        click.echo(json.dumps(values) if self._options["as_json"] else result_text(result, recovery))
        if recovery is not None:
            require_reached(prepared, recovery)
        return 0

    def _prepare(self) -> "PreparedRestore":
        from wal_pipeline.commands.restore.prepare import RestoreRequest, prepare_restore
        from wal_pipeline.postgres.recovery import TargetAction

        options, pipeline = self._options, self._pipeline
        pgdata = options["pgdata"] or pipeline.settings.pgdata
        if pgdata is None:
            raise click.UsageError("Missing option '--pgdata': the data directory to restore into.")
        stores = self._stores()
        request = RestoreRequest(
            pgdata=pgdata.absolute(),
            target=parse_target(options),
            action=TargetAction(options["action"]),
            base_backup=options["base_backup"],
            force=options["force"],
            owner=options["owner"],
            tablespaces=dict(_pair(text) for text in options["tablespaces"]),
            verify=not options["no_verify"],
            archiving=not options["no_archiving"],
            bindir=pipeline.settings.pgbindir,
        )
        layout = pipeline.layout(self._system_identifier(stores))
        return prepare_restore(request, stores, layout, pipeline.identities)

    def _stores(self) -> tuple["Store", ...]:
        chosen = self._options["store"]
        names = self._pipeline.settings.stores if chosen == "any" else (chosen,)
        unknown = [name for name in names if name not in ("r2", "b2", "local")]
        if unknown:
            raise click.UsageError(f"'{unknown[0]}' is not a store, expected one of any, r2, b2, local.")
        return tuple(self._pipeline.open_stores(names).values())

    def _system_identifier(self, stores: tuple["Store", ...]) -> int:
        from wal_pipeline.commands.restore.contents import find_system_identifier

        settings = self._pipeline.settings
        given = self._options["system_identifier"] or settings.system_identifier
        return find_system_identifier(stores, settings.prefix, settings.cluster, given)

    def _check_program(self, prepared: "PreparedRestore") -> list[str]:
        from wal_pipeline.commands.archive_get.restore_command import program
        from wal_pipeline.commands.restore.checks import check_runnable
        from wal_pipeline.settings import settings_file

        words = program(
            prepared.plan.system_identifier,
            env_file=settings_file(self._env_file),
            prefetch_dir=self._options["prefetch_dir"],
            store=self._options["store"],
        )
        check_runnable(words, prepared.user)
        return words

    def _perform(self, prepared: "PreparedRestore", program: list[str]) -> "RestoreResult":
        from wal_pipeline.cli.restore_progress import shown
        from wal_pipeline.commands.archive_get.restore_command import prefetch_folder, shell_line
        from wal_pipeline.commands.restore.perform import perform_restore
        from wal_pipeline.commands.restore.place import make_owned

        folder = prefetch_folder(
            prepared.request.pgdata, prepared.plan.system_identifier, self._options["prefetch_dir"]
        )
        told = "failed"
        try:
            with shown(prepared.download_bytes) as events:
                result = perform_restore(prepared, shell_line(program, folder.path), events)
            make_owned(folder.path, prepared.user)
            told = "restored"
        finally:
            pgdata, store = str(prepared.request.pgdata), self._options["store"]
            self._pipeline.audit.write("restore", self._pipeline.settings.cluster, told, pgdata=pgdata, store=store)
        return result

    def _start(self, prepared: "PreparedRestore") -> "RecoveryResult":
        from wal_pipeline.cli.restore_progress import recovery_shown
        from wal_pipeline.commands.archive_get.restore_command import prefetch_folder
        from wal_pipeline.commands.restore.start import find_config_file, start_and_watch

        pgdata = prepared.request.pgdata
        given = dict(_setting(text) for text in self._options["settings"])
        config = find_config_file(pgdata, prepared.binaries.major, self._options["config_file"])
        with recovery_shown(len(prepared.plan.wal)) as on_progress:
            return start_and_watch(
                prepared.binaries,
                pgdata,
                prepared.user,
                log=pgdata.with_name(f"{pgdata.name}-recovery.log"),
                settings={**given, **({} if config is None else {"config_file": str(config)})},
                prefetched=prefetch_folder(pgdata, prepared.plan.system_identifier, self._options["prefetch_dir"]),
                on_progress=on_progress,
            )


def parse_target(options: dict[str, Any]) -> "RecoveryTarget":
    """Read the recovery target from the options. Raises: click.UsageError, RecoveryTargetError, InvalidLsnError."""
    from wal_pipeline.archive.recovery.target_text import TargetTextError, target_from_text

    names = ("to_time", "to_lsn", "to_xid", "to_name", "immediate", "inclusive", "timeline")
    try:
        return target_from_text(**{name: options[name] for name in names})
    except TargetTextError as error:
        raise click.UsageError(str(error)) from None


def _pair(text: str) -> tuple[str, Path]:
    old, separator, new = text.partition("=")
    if not separator or not new.startswith("/"):
        raise click.UsageError(f"'{text}' does not map a tablespace, expected such as 16384=/new/folder.")
    return old, Path(new)


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.replace("_", "").replace(".", "").isalnum():
        raise click.UsageError(f"'{text}' is not a server setting, expected such as port=5433.")
    return name, value
