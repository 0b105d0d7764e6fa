"""Reads a code location of Dagster as plain values: the names that the UI shows and that people and data use."""

from typing import Any

import dagster as dg

from wal_pipeline_tests.support.surface.command_line import said

_DAGSTERS_OWN = "io_manager"  # a resource of every job


def assets(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    """Return every asset by its key, with its checks."""
    graph = repository.asset_graph
    checks = [spec for assets in graph.assets_defs for spec in assets.check_specs]
    return {
        key.to_user_string(): _asset(graph.get(key), [spec for spec in checks if spec.asset_key == key])
        for key in sorted(graph.get_all_asset_keys())
    }


def jobs(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    """Return every job by its name: tags, ops, resources and the fields of its launchpad."""
    return {job.name: _job(job) for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)}


def resources(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    """Return every resource by its name, with its form in the launchpad."""
    forms: dict[str, Any] = {}
    for job in repository.get_all_jobs():
        forms |= dict.fromkeys(_resources(job)) | _configs(_job_config(job)["resources"])
    return forms


def schedules(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    """Return every schedule by its name."""
    return {one.name: _schedule(one) for one in sorted(repository.schedule_defs, key=lambda one: one.name)}


def sensors(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    """Return every sensor by its name."""
    return {one.name: _sensor(one) for one in sorted(repository.sensor_defs, key=lambda one: one.name)}


def _asset(node: Any, checks: list[dg.AssetCheckSpec]) -> dict[str, Any]:
    policy = node.freshness_policy_or_from_metadata
    return said(
        {
            "group": node.group_name,
            "partitions": node.partitions_def and node.partitions_def.name,
            "kinds": sorted(node.kinds),
            "tags": dict(sorted(node.tags.items())),
            "owners": list(node.owners),
            "upstream": sorted(key.to_user_string() for key in node.parent_keys),
            "materializable": node.is_materializable,
            "freshness": policy and {"warn": _seconds(policy.warn_window), "fail": _seconds(policy.fail_window)},
            "checks": {spec.name: _check(spec) for spec in sorted(checks, key=lambda spec: spec.name)},
        }
    )


def _seconds(window: Any) -> float:
    return float(window.to_timedelta().total_seconds())


def _check(spec: dg.AssetCheckSpec) -> dict[str, Any]:
    return said({"blocking": spec.blocking})


def _job(job: dg.JobDefinition) -> dict[str, Any]:
    parts = _job_config(job)
    return said(
        {
            "tags": dict(sorted(job.tags.items())),
            "ops": sorted(node.name for node in job.nodes),
            "resources": _resources(job),
            "executor": job.executor_def.name,
            "op_config": _configs(parts["ops"]),
        }
    )


def _resources(job: dg.JobDefinition) -> list[str]:
    return sorted(set(job.resource_defs) - {_DAGSTERS_OWN})


def _job_config(job: dg.JobDefinition) -> dict[str, dg.Field]:
    return _fields(job.run_config_schema.run_config_schema_type)


def _configs(part: dg.Field) -> dict[str, Any]:
    """Return the launchpad's form of each op or resource that has one."""
    forms = {name: _fields(field.config_type).get("config") for name, field in _fields(part.config_type).items()}
    return {
        name: _form(form)
        for name, form in forms.items()
        if form and name != _DAGSTERS_OWN and _fields(form.config_type)
    }


def _form(form: dg.Field) -> dict[str, Any]:
    fields = {name: _field(field) for name, field in _fields(form.config_type).items()}
    return said({"fields": fields})


def _field(field: dg.Field) -> dict[str, Any]:
    return said(
        {
            "type": field.config_type.key,
            "required": field.is_required,
            "default": field.default_value_as_json_str if field.default_provided else None,
        }
    )


def _fields(kind: Any) -> dict[str, dg.Field]:
    return dict(sorted((getattr(kind, "fields", None) or {}).items()))


def _schedule(one: dg.ScheduleDefinition) -> dict[str, Any]:
    (request,) = one.evaluate_tick(dg.build_schedule_context()).run_requests or ()
    return said(
        {
            "cron": one.cron_schedule,
            "timezone": one.execution_timezone,
            "job": one.job_name,
            "run_config": request.run_config,
            "state": one.default_status.value,
        }
    )


def _sensor(one: dg.SensorDefinition) -> dict[str, Any]:
    return said(
        {
            "type": one.sensor_type.value,
            "jobs": sorted(target.job_name for target in one.targets),
            "interval_seconds": one.minimum_interval_seconds,
            "state": one.default_status.value,
            "resources": sorted(one.required_resource_keys),
        }
    )
