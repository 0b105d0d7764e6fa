"""Defines the format of the archive on a store: object keys, object metadata and base backup manifests."""
