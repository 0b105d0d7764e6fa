"""Plays one story in the environments that users have: versions, encodings, date styles, locales, umasks, layouts."""
