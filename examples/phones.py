"""Real speech as a table of frames of 10 ms, 38 phones and silence: Debian's English telephone prompts, one speaker.

    apt-get install asterisk-core-sounds-en-wav asterisk-core-sounds-en
    pip install pocketsphinx
    python examples/phones.py phones                     # phones/frames.csv: all prompts that can be aligned
    python examples/phones.py phones 40                  # so many of the prompts, drawn by a fixed seed

The prompts are of 8 kHz (Allison Smith, CC-BY-SA-3.0); PocketSphinx (BSD) aligns their transcripts with them, by its
dictionary and its acoustic model. A frame is shown with its neighbours, ten on each side: 0.225 s, which is 21 windows
of 25 ms. phones/sound/ has the prompts, mirrored at both ends: their first and last frames have neighbours, too.

    frames.csv       path,start,end,label,group,split    group: what is said; prompts that say the same are one group
    unlabelled.csv   path,start,end                      of prompts of speech whose words the dictionary lacks

A group lies in one split, by a hash of it: a tenth is for validation, a fifth for the test. Used by
benchmarks/ten_into_one.py.
"""

import csv
import gzip
import hashlib
import random
import re
import sys
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
RATE = 8000
HOP, WINDOW, NEIGHBOURS = 0.010, 0.025, 10
MIRRORED = round(NEIGHBOURS * HOP * RATE), round((NEIGHBOURS * HOP + WINDOW) * RATE)
"""Values before a prompt and after it."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SILENCE = "SIL"
Wave = NDArray[np.int16]
Row = tuple[str, ...]


def transcripts(path: Path) -> dict[str, str]:
    """The name of each prompt, and what is said in it; without those whose sound is described, as "[beep]"."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").partition(": ") for line in file if not line.startswith(";")]
    return {name: said for name, _, said in lines if said and not re.search(r"[\[(<][^\])>]*\w", said)}


def words_of(said: str) -> list[str] | None:
    """The words as a dictionary spells them; None where a number or a sign may be read in several ways."""
    said = re.sub(r"\[.\]", "", said.lower())  # "dash [-]"
    if re.search(r"\w\d|\d\w|[*#@/]|\w\.\w", said):
        return None
    spelled = re.sub(r"\d", lambda digit: DIGITS[int(digit[0])], said)
    return re.findall(r"[a-z]+(?:'[a-z]+)*", spelled)


def read_wave(path: Path) -> Wave:
    """A prompt, mono, 8 kHz, 16 bits."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise SystemExit(f"phones: {path} is not mono at {RATE} Hz with 16 bits")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def write_wave(path: Path, sound: Wave) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(sound), "NONE", ""))
        file.writeframes(sound.astype("<i2").tobytes())


def doubled(sound: Wave) -> Wave:
    """The same sound at twice the rate, which PocketSphinx's acoustic model takes; above 4 kHz there is nothing."""
    values = 2 * np.fft.irfft(np.fft.rfft(sound), 2 * len(sound))
    return np.clip(np.rint(values), -32768, 32767).astype("<i2")


class Aligner:
    """PocketSphinx, with its English dictionary and acoustic model."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise SystemExit("phones: pocketsphinx is not installed: pip install pocketsphinx") from None
        # A path through its lattice of words would leave some phones too short for a second pass.
        self.decoder: Any = Decoder(lm=None, bestpath=False, loglevel="FATAL")

    def knows(self, words: list[str]) -> bool:
        return all(self.decoder.lookup_word(word) is not None for word in words)

    def phones(self, words: list[str], sound: Wave) -> list[str] | None:
        """The phone of each frame of 10 ms; None where these words cannot be aligned with the sound."""
        self.decoder.set_align_text(" ".join(("<s>", *words, "</s>")))  # silence before and after
        try:
            self._hear(sound)
            if self.decoder.hyp() is None:
                return None
            self.decoder.set_alignment()
            self._hear(sound)
        except RuntimeError:
            return None
        parts = [(phone.name, phone.start, phone.duration) for word in self.decoder.get_alignment() for phone in word]
        frames: list[str] = []
        for name, start, duration in parts:
            if start != len(frames) or duration < 1:
                return None
            frames += [SILENCE if name.startswith("+") else name] * duration
        return frames

    def _hear(self, sound: Wave) -> None:
        self.decoder.reinit_feat()  # forgets the noise of what it heard before
        self.decoder.start_utt()
        self.decoder.process_raw(doubled(sound).tobytes(), full_utt=True)
        self.decoder.end_utt()


def split_of(group: str) -> str:
    share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.7 else "validation" if share < 0.8 else "test"


def times(count: int) -> Iterator[tuple[str, str]]:
    """From when to when each frame and its neighbours are, in seconds of the mirrored sound."""
    for at in range(count):
        yield f"{at * HOP:.2f}", f"{at * HOP + 2 * NEIGHBOURS * HOP + WINDOW:.3f}"


def main(out: Path, count: int | None = None, sounds: Path = SOUNDS, texts: Path = TRANSCRIPTS) -> None:
    """Write the folder `out`, of all prompts or of `count` of them."""
    for needed, package in ((sounds, "asterisk-core-sounds-en-wav"), (texts, "asterisk-core-sounds-en")):
        if not needed.exists():
            raise SystemExit(f"phones: {needed} does not exist: apt-get install {package}")
    said = {name: text for name, text in sorted(transcripts(texts).items()) if (sounds / f"{name}.wav").is_file()}
    if count is not None:
        said = {name: said[name] for name in sorted(random.Random(0).sample(sorted(said), min(count, len(said))))}
    aligner = Aligner()
    frames, unlabelled, prompts = list[Row](), list[Row](), Counter[str]()
    for name, text in said.items():
        sound = read_wave(sounds / f"{name}.wav")
        words = words_of(text)
        phones = aligner.phones(words, sound) if words and aligner.knows(words) else None
        path = f"sound/{name}.wav"
        write_wave(out / path, np.pad(sound, MIRRORED, mode="symmetric"))
        if phones is None or words is None:
            unlabelled += [(path, *time) for time in times(int((len(sound) / RATE - WINDOW) / HOP) + 1)]
            prompts["unlabelled"] += 1
            continue
        group = " ".join(words)
        rows = zip(times(len(phones)), phones, strict=True)
        frames += [(path, *time, phone, group, split_of(group)) for time, phone in rows]
        prompts[split_of(group)] += 1
    _write(out / "frames.csv", ("path", "start", "end", "label", "group", "split"), frames)
    _write(out / "unlabelled.csv", ("path", "start", "end"), unlabelled)
    for split in ("train", "validation", "test"):
        print(f"{split}: {prompts[split]} prompts, {sum(row[-1] == split for row in frames):,} frames")
    print(f"{out / 'frames.csv'}: {len(frames):,} frames of {len({row[3] for row in frames})} classes")
    print(f"{out / 'unlabelled.csv'}: {prompts['unlabelled']} prompts, {len(unlabelled):,} frames")


def _write(path: Path, header: Row, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not (sys.argv[2:3] or ["1"])[0].isdigit():
        raise SystemExit("usage: phones.py OUT [COUNT]")
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None)
