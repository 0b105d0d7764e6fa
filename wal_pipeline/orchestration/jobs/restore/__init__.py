"""Holds the restore job: its form, its run, and what it says on the way."""
