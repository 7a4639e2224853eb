"""Causal language models of transformers, and students made of them."""
