"""What the command line shows: progress and plans."""
