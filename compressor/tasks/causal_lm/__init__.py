"""Causal language models: documents, of which every token is told from those before it."""
