"""Tests what is measured of a restore."""
