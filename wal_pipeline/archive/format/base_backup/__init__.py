"""Defines the format of a base backup on a store: its manifest, what was said of it, and what lies in its volumes."""
