"""Decides which objects of a store expire and gives the reason for each that stays."""
