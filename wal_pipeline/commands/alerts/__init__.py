"""Opens, resolves and delivers alerts."""
