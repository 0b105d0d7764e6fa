"""Describes PostgreSQL's WAL as plain data: LSNs, file names, timelines and page headers."""
