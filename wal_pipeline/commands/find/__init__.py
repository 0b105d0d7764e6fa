"""Finds what transactions did between two moments, in the archived WAL."""
