"""Tests the restore of only some databases."""
