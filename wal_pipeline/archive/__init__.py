"""Describes our archive as plain data: no module here opens a file, asks a server or reads a clock."""
