"""Takes base backups by reading the server's own data directory, with several workers at once."""
