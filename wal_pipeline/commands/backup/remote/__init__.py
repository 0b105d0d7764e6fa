"""Takes base backups with pg_basebackup: its tar, cut into volumes, and the folder for clusters with tablespaces."""
