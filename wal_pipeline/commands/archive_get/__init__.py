"""Delivers one WAL file to PostgreSQL's restore_command and fetches the next ones ahead."""
