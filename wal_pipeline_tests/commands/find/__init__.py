"""Tests of finding what transactions did."""
