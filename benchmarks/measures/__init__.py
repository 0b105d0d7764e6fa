"""Defines each measurement in a module of its own, whose ``measure(bench)`` returns the figures."""
