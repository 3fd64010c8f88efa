"""What goes into the runtime and what comes out."""
