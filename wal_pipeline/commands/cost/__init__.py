"""Estimates what the archive costs and counts the requests that the stores bill."""
