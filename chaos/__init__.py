"""Plays schedules of faults around a real archive, and proves that nothing was lost."""
