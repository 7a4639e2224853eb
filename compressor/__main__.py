"""`python -m compressor`, and the program kdc itself: signals are caught before anything that takes a moment."""

from compressor import interruption


def main() -> None:
    """The entry point: run a command, and end with its exit code."""
    interruption.catch()
    from compressor.cli import main as run

    run()


if __name__ == "__main__":
    main()
