"""Tests of the format of a base backup."""
