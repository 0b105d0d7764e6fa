"""Keeps the backup records in a SQL database; losing it costs no recovery."""
