"""Networks that classify sounds."""
