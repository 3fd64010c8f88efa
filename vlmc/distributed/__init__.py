"""One model on several devices: what each holds, and how their processes work together."""
