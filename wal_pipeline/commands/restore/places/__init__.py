"""Finds and prepares the places of a restore: its work folder, the folder of the WAL, the configuration."""
