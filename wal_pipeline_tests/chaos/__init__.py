"""The chaos suite: seeded schedules of faults around a real cluster, real stores and the real archiving process."""
