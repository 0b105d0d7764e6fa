"""``wal-pipeline alerts`` lists, acknowledges, closes and delivers alerts."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line
from wal_pipeline.cli.spoken_group import SpokenGroup
from wal_pipeline.text import moment_json, moment_utc, shown_name

if TYPE_CHECKING:
    from wal_pipeline.archive.alerts import Alert
    from wal_pipeline.commands.alerts.destinations import Destination


@click.group("alerts", cls=SpokenGroup, invoke_without_command=True)
@click.pass_context
def alerts_command(ctx: click.Context) -> int:
    """Show the open alerts, acknowledge or close one, send the new ones, or try the notifications."""
    return ctx.invoke(list_alerts) if ctx.invoked_subcommand is None else 0


@alerts_command.command("list")
@click.option("--all", "show_all", is_flag=True, help="Also the alerts that are over.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@pass_context
def list_alerts(context: Context, show_all: bool = False, as_json: bool = False) -> int:
    """List the open alerts, the oldest first."""
    catalog = context.pipeline.catalog
    alerts = catalog.alerts.all() if show_all else catalog.alerts.active()
    if as_json:
        click.echo(json.dumps([_as_json(alert) for alert in alerts], indent=1))
    elif not alerts:
        print_line(f"{'no alerts' if show_all else 'no open alerts'} are recorded; {_last_look(context)}")
    else:
        for alert in alerts:
            _tell(alert)
    return 0


@alerts_command.command("ack")
@click.argument("alert_id", type=int)
@click.option("--reason", required=True, help="Why it may stay open: others read it.")
@click.option("--by", help="Who knows of it; by default your user name.")
@pass_context
def acknowledge(context: Context, alert_id: int, reason: str, by: str | None) -> int:
    """Acknowledge an open alert by its number. It stays open until its cause is gone."""
    from wal_pipeline.commands.audit import running_user

    pipeline, reason = context.pipeline, shown_name(reason)
    alert = pipeline.catalog.alerts.acknowledge(alert_id, by or running_user(), reason, pipeline.clock())
    return _note(context, alert, ("acknowledge", "acknowledged"), reason=reason, by=by)


@alerts_command.command("close")
@click.argument("alert_id", type=int)
@click.option("--reason", required=True, help="Why nothing is left to do: others read it.")
@click.option("--by", help="Who says so; by default your user name.")
@pass_context
def close(context: Context, alert_id: int, reason: str, by: str | None) -> int:
    """Close the alert of a failed run, such as a restore that was started by hand. Others end with their cause."""
    from wal_pipeline.commands.alerts.deliver import close_alert

    alert = close_alert(context.pipeline.catalog, alert_id, context.pipeline.clock())
    return _note(context, alert, ("close alert", "closed"), reason=shown_name(reason), by=by)


@alerts_command.command("deliver")
@pass_context
def deliver(context: Context) -> int:
    """Look at everything once and send the new alerts, as Dagster's health sensor does: for cron, beside Dagster.

    Exit code 1 where a notification was not taken, or the catalog could not be used.
    """
    from wal_pipeline.commands.alerts.catalog_outage import OutageFile
    from wal_pipeline.commands.health.watch import watch_health
    from wal_pipeline.wiring.health import fact_sources, health_limits

    pipeline = context.pipeline
    destinations = _destinations(context)
    memory = OutageFile(pipeline.settings.state_folder / "catalog-outage")
    report = watch_health(
        fact_sources(pipeline, need_catalog=False),
        health_limits(pipeline),
        lambda: destinations,
        cluster=pipeline.settings.cluster,
        outage=memory.read(),
    )
    memory.write(report.outage)
    print_line(report.describe())
    return 1 if report.delivery.failures or report.outage is not None else 0


@alerts_command.command("test")
@pass_context
def send_test(context: Context) -> int:
    """Send a test message to every notification URL. Exit code 1 where one does not take it."""
    from wal_pipeline.archive.alerts import Notification, Severity

    settings, destinations = context.pipeline.settings, _destinations(context)
    message = Notification(
        f"wal-pipeline {settings.cluster}: test", "This is a test: alerts would arrive here.", Severity.INFO, False
    )
    failures = [destination.send(message) for destination in destinations]
    for destination, failure in zip(destinations, failures, strict=True):
        print_line(f"{destination.name}: sent" if failure is None else failure)
    return 1 if any(failures) else 0


def _last_look(context: Context) -> str:
    """Say how old the records of alerts are: nobody may have looked."""
    from wal_pipeline.commands.health.facts import sensor_looked_at

    looked_at = sensor_looked_at(context.pipeline.catalog)
    if looked_at is None:
        return "Dagster's health sensor has not looked yet: 'wal-pipeline status' looks now"
    return f"Dagster's health sensor looked last at {moment_utc(looked_at)}"


def _note(context: Context, alert: "Alert", done: tuple[str, str], *, reason: str, by: str | None) -> int:
    """Write a person's act on an alert into the audit log (its action and result), and print the alert."""
    action, result = done
    subject = f"{alert.kind.value} {alert.subject}".strip()
    context.pipeline.audit.write(action, subject, result, by=by, alert=alert.id, reason=reason)
    _tell(alert)
    return 0


def _destinations(context: Context) -> "list[Destination]":
    from wal_pipeline.errors import SettingsError
    from wal_pipeline.wiring.health import destinations

    found = destinations(context.pipeline)
    if not found:
        raise SettingsError("WAL_PIPELINE_NOTIFICATION_URLS is not set", hint="Give it one or more Apprise URLs.")
    return found


def _tell(alert: "Alert") -> None:
    until = f", until {moment_utc(alert.resolved_at)}" if alert.resolved_at else ""
    print_line(
        f"{alert.id:>5}  {alert.severity.value:<8}  {alert.kind.value} {alert.subject}: {alert.message}\n"
        f"       since {moment_utc(alert.opened_at)}{until}, times seen {alert.times_seen}"
    )
    if alert.acknowledged_at is not None:
        print_line(f"       acknowledged by {alert.acknowledged_by}: {alert.acknowledged_reason}")


def _as_json(alert: "Alert") -> dict[str, Any]:
    values = asdict(alert)
    return {name: moment_json(value) if name.endswith("_at") else value for name, value in values.items()}
