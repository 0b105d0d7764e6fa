"""Runs a copy of the cluster as of a moment beside the original, and removes it when its time is over."""
