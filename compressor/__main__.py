"""`python -m compressor`: kdc, for launchers that start a module: `accelerate launch -m compressor …`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    here, root = str(Path.cwd()), str(Path(__file__).resolve().parent.parent)
    # Python puts the current folder before all libraries, and a file sklearn.py there would run.
    if sys.path[0] == here != root and not getattr(sys.flags, "safe_path", False):
        del sys.path[0]

    from compressor.cli import main

    main()
