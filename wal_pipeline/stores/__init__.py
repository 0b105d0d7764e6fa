"""Stores: where copies lie. One contract (base), and the drivers that keep it."""
