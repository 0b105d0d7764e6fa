"""Defines the assets and asset checks, and the metadata that the UI shows for them."""
