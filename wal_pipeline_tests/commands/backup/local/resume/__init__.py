"""Tests of base backups that read the server's own data directory."""
