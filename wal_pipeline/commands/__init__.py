"""What the program does: each command takes its collaborators as arguments and returns frozen results."""
