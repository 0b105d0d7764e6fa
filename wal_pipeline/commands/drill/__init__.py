"""Proves a store by a real restore into a scratch cluster."""
