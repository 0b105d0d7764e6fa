"""Tests of decoding the records of WAL segments."""
