"""Defines the sensors that start archiving runs and watch over health and lost runs."""
