"""Defines the jobs and what their runs record."""
