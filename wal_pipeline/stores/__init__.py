"""Stores objects: the contract of a store, and a folder for each kind of store."""
