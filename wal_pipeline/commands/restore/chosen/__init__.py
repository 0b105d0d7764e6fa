"""Restores only some databases of a cluster: which, which bytes, and what becomes of the others."""
