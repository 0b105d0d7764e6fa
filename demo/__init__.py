"""The main job for real, on one machine: PostgreSQL, two S3 servers and Dagster, started and stopped together."""
