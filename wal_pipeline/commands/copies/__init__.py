"""Finds, stores, reads and proves the copies of files on the stores."""
