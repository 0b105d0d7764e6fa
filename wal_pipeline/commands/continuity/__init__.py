"""Keeps the WAL of one server apart from that of another: a name is no proof that a segment continues the last one."""
