"""Text classification: one text a sample, or a pair of texts."""
