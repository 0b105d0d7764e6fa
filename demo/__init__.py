"""Runs PostgreSQL, two S3 servers and Dagster on one machine, and archives WAL for real."""
