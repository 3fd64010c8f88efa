"""Query this machine: GPUs, memory, engine packages and cache folders."""
