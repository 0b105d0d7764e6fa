"""Records in Dagster what an archiving run does, and where its time goes."""
