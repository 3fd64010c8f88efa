"""Preview a build: steps, time, memory, disk."""
