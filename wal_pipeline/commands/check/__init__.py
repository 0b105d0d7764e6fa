"""Checks whether archiving works now, item by item."""
