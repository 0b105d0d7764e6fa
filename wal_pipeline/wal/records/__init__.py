"""Decodes the records of WAL segments into what each transaction did, without PostgreSQL's programs."""
