"""`python -m compressor`, and the program kdc itself: signals are caught before anything that takes a moment."""

import sys


def main() -> None:
    """The entry point: run a command, and end with its exit code."""
    from compressor.processes import interruption

    interruption.catch()
    from compressor.cli.app import main as run

    run()


def _leave_current_folder() -> None:
    """`python -m` puts the current folder before all libraries: a file sklearn.py there would run. It stays where kdc
    itself lies there, as in a checkout."""
    root = __file__.rpartition("compressor")[0].rstrip("/\\")
    if sys.path[0] != root and not getattr(sys.flags, "safe_path", False):
        del sys.path[0]


if __name__ == "__main__":
    _leave_current_folder()
    main()
