"""Keeps lists of the relations of a cluster on its stores, and reads them."""
