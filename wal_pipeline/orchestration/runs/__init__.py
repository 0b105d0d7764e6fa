"""Reads and writes Dagster's own records of runs and events."""
