"""Takes a base backup onto every store and waits until each store can restore it."""
