"""Sounds for the example programs: made to features exactly as the model was trained and evaluated.

classify.py has the one part that depends on the runtime, sound_features.py makes the features.
Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_classes import LabelsError, labels_in, likeliest, shown
    from targets.sound_features import FrontEnd, Heard
    from targets.sound_files import Sound, SoundError, SoundMissingError, read_sound
else:
    from classify_classes import LabelsError, labels_in, likeliest, shown
    from sound_features import FrontEnd, Heard
    from sound_files import Sound, SoundError, SoundMissingError, read_sound

Floats = npt.NDArray[np.float32]
EXIT_USAGE, EXIT_MISSING = 2, 4


def main(logits_of: Callable[[Path, Any, str], Floats]) -> int:
    """`classify.py FILE [--top 5]`. `logits_of`: the model's file, its inputs by name and the precision in which it is
    to run -> logits [batch, classes]."""
    parser = argparse.ArgumentParser(description="Says what is to be heard in a file of sound.")
    parser.add_argument("file", metavar="FILE", help="wav; flac, ogg and mp3 where soundfile is installed")
    parser.add_argument("--top", type=int, default=5, help="how many classes to name, the likeliest first (5)")
    args = parser.parse_args()
    here = Path(__file__).resolve().parent
    manifest, preprocess = (
        json.loads((here / name).read_text("utf-8")) for name in ("manifest.json", "preprocess.json")
    )
    try:
        labels = labels_in(here / "labels.txt")
        front_end = FrontEnd(preprocess)
        sound = read_sound(Path(args.file))
        heard = front_end.heard(sound)
        batch = {preprocess["name"]: np.stack([heard.input] * preprocess["shape"][0])}
        logits = logits_of(here / manifest["model"], batch, manifest["precision"])
        if logits.shape[-1] != len(labels):
            raise LabelsError(f"labels.txt names {len(labels)} classes, the model answers {logits.shape[-1]}")
    except SoundMissingError as error:
        print(f"classify.py: {shown(str(error))}", file=sys.stderr)
        return EXIT_MISSING
    except (LabelsError, SoundError) as error:
        print(f"classify.py: {shown(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except ImportError as error:
        print(f"classify.py: {manifest['install']} ({error})", file=sys.stderr)
        return EXIT_MISSING
    for line in done_to(sound, heard, front_end):
        print(f"classify.py: {line}", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have signs that this terminal has not got
        sys.stdout.reconfigure(errors="backslashreplace")
    for name, share in likeliest(logits[0], labels, args.top):
        print(f"{share:7.2%}  {shown(name)}")
    return 0


def done_to(sound: Sound, heard: Heard, front_end: FrontEnd) -> list[str]:
    """What was changed about a sound so that the model could take it, a line each."""
    reads = front_end.samples / front_end.rate
    lines = []
    if sound.channels > 1:
        lines.append(f"{sound.channels} channels, of which the model reads the mean")
    if heard.resampled:
        lines.append(f"resampled from {sound.rate:,} to {front_end.rate:,} Hz")
    if heard.cut:
        lines.append(f"cut: {sound.seconds:.2f} s, of which the model reads the {reads:.2f} s in the middle")
    if heard.filled:
        lines.append(f"filled up with silence: {sound.seconds:.2f} s, and the model reads {reads:.2f} s")
    return lines
