"""Brings WAL files and base backups to a store that lacks them."""
