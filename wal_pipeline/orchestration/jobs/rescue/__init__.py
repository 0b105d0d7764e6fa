"""Holds the job that brings single tables back: its form, its run, and what it says on the way."""
