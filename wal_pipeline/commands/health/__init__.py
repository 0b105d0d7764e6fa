"""Looks at everything once a minute and says what needs a person."""
