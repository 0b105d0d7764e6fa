"""Collectors of what a user relies on. Each looks at the code from outside, so that modules may move and be renamed."""
