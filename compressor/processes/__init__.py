"""Other processes: runners, helpers, the processes of one run; and how a command is interrupted."""
