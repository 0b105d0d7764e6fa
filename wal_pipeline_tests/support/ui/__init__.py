"""Shows clusters with a known history to a browser."""
