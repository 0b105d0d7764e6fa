"""Takes finished WAL from the spool to every store and releases it when all copies are verified."""
