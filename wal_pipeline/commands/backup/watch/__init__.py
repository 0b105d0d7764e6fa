"""Watches a base backup while it is taken: what it waits for, and what people must be told of it."""
