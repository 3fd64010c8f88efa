"""What this machine has: packages that engines need, GPUs, folders for what may be lost."""
