"""Checkpoints that are not ours: read without running code, and searched for the weights that are meant."""
