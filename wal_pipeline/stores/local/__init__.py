"""Stores objects in a local folder."""
