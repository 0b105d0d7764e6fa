"""Goes on with base backups that were cut: finds them, and copies on each store what is unchanged since."""
