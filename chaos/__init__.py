"""Breaks things on purpose: schedules of faults around a real archive, and the proof that nothing was lost."""
