"""Holds the job that makes, moves and ends clones: its form and its run."""
