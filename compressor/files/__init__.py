"""Files: read within bounds, written whole or not at all, locked; and how the folder of a bundle changes."""
