"""How Dagster asks: assets, jobs, sensors, schedules and checks over the commands."""
