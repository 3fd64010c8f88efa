"""The page of a verification."""
