"""The command line. What a command needs is imported when it runs, so `--help` is instant; nothing imports this."""
