"""Tests restores that make a standby."""
