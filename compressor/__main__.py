"""`python -m compressor`: kdc, for launchers that start a module: `accelerate launch -m compressor …`."""

from compressor.cli import main

if __name__ == "__main__":
    main()
