"""Runs a restored server beside its original: its folder, its WAL and its isolation."""
