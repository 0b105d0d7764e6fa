"""Brings a cluster back to a chosen moment from the stores alone."""
