"""What a language model's bundle holds: the same kinds of files as a classifier's, with figures of their own."""
