"""The backup records: a SQL database through SQLAlchemy Core. An index of the stores: losing it loses no recovery."""
