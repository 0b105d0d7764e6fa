"""Lets other processes read and compress the files of a base backup."""
