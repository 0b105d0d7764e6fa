"""Defines the sensors that start runs and watch over health, failed runs and lost runs."""
