"""The teacher as the loop asks it: run, read from the cache, or read from a table of predictions."""
