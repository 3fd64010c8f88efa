"""What a job writes: a journal of lines, and Parquet."""
