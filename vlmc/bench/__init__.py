"""`vlmc bench`: how many questions a minute, and where the time goes."""
