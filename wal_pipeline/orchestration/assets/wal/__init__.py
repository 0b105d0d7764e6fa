"""Defines what the UI shows of the WAL itself: the spool, one segment, and the tail of the open segment."""
