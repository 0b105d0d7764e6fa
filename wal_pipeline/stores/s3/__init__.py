"""Stores objects in a bucket on an S3 server, such as R2 or B2."""
