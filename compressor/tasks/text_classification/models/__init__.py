"""Transformers that classify texts: loaded, cut, and taught other classes."""
