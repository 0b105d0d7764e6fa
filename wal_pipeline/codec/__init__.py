"""Compresses, encrypts and opens stored bytes in formats that standard tools read."""
