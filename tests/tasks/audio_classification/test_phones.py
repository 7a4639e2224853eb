"""examples/phones.py: transcripts become words, prompts become frames, and what is said lies in one split."""

import csv
import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from examples import phones


def test_what_is_said_is_read_and_what_is_described_is_not(tmp_path: Path) -> None:
    texts = tmp_path / "said.txt.gz"
    lines = (
        "; a comment", "", "beep: [this is a simple beep tone]", "intro: Leave your message. (simple tone sound plays)",
        "letters/dash: dash [-]", "vm-press: Press 5 now.", "silence/1: (1 second of silence)",
        "joined: <beep ascending>",
    )  # fmt: skip
    with gzip.open(texts, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    assert phones.transcripts(texts) == {"letters/dash": "dash [-]", "vm-press": "Press 5 now."}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Press 5 now.", ["press", "five", "now"]),
        ("I'm sorry, that's o'clock", ["i'm", "sorry", "that's", "o'clock"]),
        ("dash [-]", ["dash"]),
        ("...re-record; yes", ["re", "record", "yes"]),
        ("3D audio", None),
        ("dial 10", None),
        ("H.323", None),
        ("press * now", None),
        ("P.M.", None),
        ("", []),
    ],
)
def test_words_are_spelled_as_a_dictionary_does(said: str, words: list[str] | None) -> None:
    assert phones.words_of(said) == words


def test_twice_the_rate_is_the_same_sound() -> None:
    time = np.arange(800) / phones.RATE
    sound = np.rint(9000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16)
    expected = 9000 * np.sin(2 * np.pi * 500 * np.arange(1600) / (2 * phones.RATE))
    assert np.abs(phones.doubled(sound) - expected).max() <= 2


def test_a_frame_lies_in_the_middle_of_its_neighbours() -> None:
    """Frame 3 of a prompt is from 0.03 s on, for 0.025 s; the mirrored sound begins 0.1 s before the prompt."""
    start, end = [*phones.times(4)][3]
    assert (start, end) == ("0.03", "0.255")
    assert phones.MIRRORED[0] / phones.RATE == 0.1
    before, after = 0.1 + 0.03 - float(start), float(end) - (0.1 + 0.03 + 0.025)
    assert before == pytest.approx(0.1)
    assert after == pytest.approx(0.1)


def test_shares_of_the_splits() -> None:
    splits = [phones.split_of(f"what is said {number}") for number in range(5000)]
    assert splits.count("train") == pytest.approx(3500, abs=150)
    assert splits.count("validation") == pytest.approx(500, abs=100)


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere does not exist: apt-get install asterisk-core-sounds-en-wav"):
        phones.main(tmp_path / "out", sounds=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames of twelve prompts."""
    if not phones.SOUNDS.is_dir() or not phones.TRANSCRIPTS.is_file():
        pytest.skip("asterisk-core-sounds-en-wav and asterisk-core-sounds-en are not installed")
    if find_spec("pocketsphinx") is None:
        pytest.skip("pocketsphinx is not installed")
    phones.main(out := tmp_path_factory.mktemp("phones") / "phones", 12)
    return out


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return [*csv.DictReader(text)]


@pytest.mark.slow
def test_every_frame_is_in_its_sound_and_every_group_in_one_split(made: Path) -> None:
    rows = rows_of(made / "frames.csv")
    assert len(rows) > 500
    assert len({row["label"] for row in rows}) > 25
    lengths = {row["path"]: len(phones.read_wave(made / row["path"])) / phones.RATE for row in rows}
    assert all(0 <= float(row["start"]) < float(row["end"]) <= lengths[row["path"]] for row in rows)
    assert all(row["split"] == phones.split_of(row["group"]) for row in rows)
    paths = {(row["path"], row["group"]) for row in rows}
    assert len(paths) == len(lengths)


@pytest.mark.slow
def test_silence_is_where_a_prompt_is_silent(made: Path) -> None:
    """Frames that the aligner takes for silence are softer, on the median, than a tenth of its vowels."""
    loudness: dict[bool, list[float]] = {True: [], False: []}
    for row in rows_of(made / "frames.csv"):
        if row["label"] == phones.SILENCE or row["label"] in ("AA", "AE", "AY", "EH", "EY", "IY", "OW"):
            sound = phones.read_wave(made / row["path"])
            middle = round((float(row["start"]) + 0.1) * phones.RATE)
            values = sound[middle : middle + 200].astype(float)
            loudness[row["label"] == phones.SILENCE].append(float(np.sqrt((values**2).mean())))
    assert np.median(loudness[True]) < 0.1 * np.median(loudness[False])


@pytest.mark.slow
def test_a_prompt_has_the_same_frames_whatever_else_is_aligned(made: Path, tmp_path: Path) -> None:
    phones.main(tmp_path / "few", 3)
    few = rows_of(tmp_path / "few" / "frames.csv")
    both = {row["path"] for row in few} & {row["path"] for row in rows_of(made / "frames.csv")}
    assert both
    assert [row for row in few if row["path"] in both] == [
        row for row in rows_of(made / "frames.csv") if row["path"] in both
    ]
