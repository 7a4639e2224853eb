"""What `kdc --help` takes beside an empty typer program, in one run, one after the other:

python -m benchmarks.help_time [--repeats 20]
"""

import argparse
import statistics
import subprocess
import sys
import time

EMPTY = """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None)
@app.command()
def nothing() -> None: ...
@app.command()
def nothing_else() -> None: ...
app()
"""
PROGRAMS = {
    "empty typer program": (sys.executable, "-c", EMPTY, "--help"),
    "kdc --help": (sys.executable, "-m", "compressor", "--help"),
}


def seconds(command: tuple[str, ...]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    found: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(repeats + 1):  # the first finds the files not yet in memory
        for name, command in PROGRAMS.items():
            found[name].append(seconds(command))
    for name, times in found.items():
        kept = sorted(times[1:])
        print(f"{name}: median {statistics.median(kept):.3f} s, {kept[0]:.3f} to {kept[-1]:.3f} (n = {repeats})")
    pairs = [own - empty for empty, own in zip(*(times[1:] for times in found.values()), strict=True)]
    print(f"apart: median {statistics.median(pairs):.3f} s, {min(pairs):.3f} to {max(pairs):.3f}")


if __name__ == "__main__":
    main()
