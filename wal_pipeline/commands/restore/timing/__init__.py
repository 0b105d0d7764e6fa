"""Compares what a restore has to do with the time that it takes."""
