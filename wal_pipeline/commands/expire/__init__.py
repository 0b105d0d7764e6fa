"""Removes from each store what the recovery window no longer needs."""
