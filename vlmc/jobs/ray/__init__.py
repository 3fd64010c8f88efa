"""The job on a Ray cluster: parts of the input on workers, each with a model of its own."""
