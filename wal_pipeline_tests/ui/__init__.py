"""Tests what a person sees in Dagster's UI, in a real browser."""
