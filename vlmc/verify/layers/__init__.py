"""Compare the layers of a tower's typed or Q/DQ graph with those of its fp32 graph."""
