"""The events that long work reports, and the channel that carries them to a view."""
