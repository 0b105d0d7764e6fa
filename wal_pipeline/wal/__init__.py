"""PostgreSQL's WAL as data: LSNs, file names, timelines, page headers. No I/O, no clock."""
