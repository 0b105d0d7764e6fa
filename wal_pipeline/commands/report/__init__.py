"""Makes the report: one HTML page about the archive."""
