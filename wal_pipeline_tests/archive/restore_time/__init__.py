"""Tests the prediction of how long a restore takes."""
