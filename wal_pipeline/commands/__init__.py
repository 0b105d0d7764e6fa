"""Holds what the program does: a folder for each verb, and one for each idea that several verbs share."""
