"""Proves what the stores hold and repairs one copy from a good one."""
