"""Deals with this machine's files: durable writes, owners, open writers and ages."""
