"""Predicts how long a restore takes, from what earlier ones took."""
