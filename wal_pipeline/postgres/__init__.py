"""Talks to PostgreSQL: its server, its programs and its files."""
