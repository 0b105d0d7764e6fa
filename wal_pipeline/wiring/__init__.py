"""Turns the settings into the objects that each verb needs."""
