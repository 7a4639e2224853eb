"""Which layers of two networks a loss compares, and what stands between them."""
