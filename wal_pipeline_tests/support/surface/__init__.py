"""Collects all that a user relies on from outside the code, so that modules may move and be renamed."""
