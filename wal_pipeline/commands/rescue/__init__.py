"""Brings single tables, or a database, back from the archive, beside the living cluster."""
