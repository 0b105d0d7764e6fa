"""Tests of the worker processes of a base backup."""
