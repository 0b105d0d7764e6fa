"""Measurements against what a user would pick instead, each figure a ratio of things run alternately."""
