"""Holds the job that finds what transactions did: its form and its run."""
