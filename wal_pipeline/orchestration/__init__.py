"""Defines for Dagster the assets, jobs, sensors and schedules over the commands."""
