"""Takes base backups from a standby: what the primary alone can do for them."""
