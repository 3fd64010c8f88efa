"""What long work reports while it runs; the command line shows it."""
