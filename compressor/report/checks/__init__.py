"""The lines that a variant is held against, and what verdicts on them rest on."""
