"""PostgreSQL's programs and files on this machine."""
