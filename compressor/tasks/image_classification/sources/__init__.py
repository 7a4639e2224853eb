"""Where images come from: one module a source, one row a scheme in `table`."""
