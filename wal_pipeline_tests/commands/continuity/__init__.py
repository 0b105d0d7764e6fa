"""Tests the room that keeps the WAL of two servers apart."""
