"""Finds what relations were called, and which file nodes a name had."""
