"""Audio classification: everything that is about sounds."""
