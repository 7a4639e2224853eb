"""Where a training runs: its device, memory, caches and child processes."""
