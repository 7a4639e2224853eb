"""What a bundle holds, and how it is put together."""
