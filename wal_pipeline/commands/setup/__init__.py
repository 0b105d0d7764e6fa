"""Finds out what is wrong with a server's archiving and mends it."""
