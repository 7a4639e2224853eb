"""Debian's recorded telephone prompts as a folder a language: English, French, Italian, Russian, Spanish, at 8,000 Hz.

    apt-get install asterisk-core-sounds-en-wav asterisk-core-sounds-es-wav asterisk-core-sounds-fr-wav \\
        asterisk-core-sounds-it-wav asterisk-core-sounds-ru-wav
    python examples/prompts.py prompts 300        # so many of each language, drawn by a fixed seed

Each language is read by one speaker (English and Spanish by the same name): what tells these languages apart may be the
voices, and says nothing about others. Used by the tutorial on sound.
"""

import random
import shutil
import sys
import wave
from pathlib import Path

SOUNDS = Path("/usr/share/asterisk/sounds")
SPEAKERS = {
    "English": "en_US_f_Allison",
    "French": "fr_CA_f_June",
    "Italian": "it_IT_m_Carlo",
    "Russian": "ru_RU_f_IvrvoiceRU",
    "Spanish": "es_MX_f_Allison",
}
SHORTEST = 1.0
"""Seconds: there is no language in a beep, and little in a digit."""


def long_enough(path: Path) -> bool:
    """Whether a prompt is longer than a word."""
    with wave.open(str(path)) as file:
        return bool(file.getnframes() >= SHORTEST * file.getframerate())


def main(out: Path, count: int, source: Path = SOUNDS) -> None:
    """Copy `count` prompts of each language to `out`, a folder each."""
    for language, speaker in SPEAKERS.items():
        if not (source / speaker).is_dir():
            package = f"asterisk-core-sounds-{speaker[:2]}-wav"
            raise SystemExit(f"prompts: {source / speaker} does not exist: apt-get install {package}")
        paths = [path for path in sorted((source / speaker).rglob("*.wav")) if long_enough(path)]
        chosen = random.Random(0).sample(paths, min(count, len(paths)))
        (out / language).mkdir(parents=True, exist_ok=True)
        for path in chosen:
            name = "-".join(path.relative_to(source / speaker).parts)
            shutil.copyfile(path, out / language / name)
        print(f"{out / language}: {len(chosen)} of {len(paths)} prompts, all by {speaker}")


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdigit() or sys.argv[2] == "0":
        raise SystemExit("usage: prompts.py OUT COUNT")
    main(Path(sys.argv[1]), int(sys.argv[2]))
