"""Holds the assets of the accident desk: what a search found, the clones, the tables that were brought back."""
