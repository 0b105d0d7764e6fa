"""Lets Dagster ask: assets, jobs, sensors and schedules over the commands."""
