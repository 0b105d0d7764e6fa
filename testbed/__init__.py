"""Runs real servers for demo, benchmarks, chaos and tests: PostgreSQL, S3, Dagster and fault proxies."""
