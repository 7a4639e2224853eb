"""Tables of sounds: whole files, frames of long ones, groups."""

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.groups import split_off_groups
from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.feed import model_input
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.waveforms import Decoding, bytes_of, store_waves, windows
from tests.kit import Hearing
from tests.tasks.audio_classification.kit import (
    PITCHES,
    RATE,
    encoded,
    tone,
    tones,
    write_sound,
    write_table,
)

LONG = AudioPreprocess(sample_rate=RATE, samples=800, window=100, hop=40, fft=256, high_hz=RATE / 2, mean=-2, std=3)


def opened(reference: object, heard: Hearing | None = None) -> Dataset:
    return open_data(str(reference), progress=heard or Hearing())


def recordings(folder: Path, count: int = 6, rate: int = RATE) -> list[tuple[object, ...]]:
    """Long files, in each of which the three pitches follow one another; and rows of a table that name the parts."""
    rows: list[tuple[object, ...]] = []
    for number in range(count):
        waves = [tone(pitch, 100 * number + row, 0.25, rate) for row, pitch in enumerate(PITCHES.values())]
        write_sound(folder / f"long{number}.wav", np.concatenate(waves), rate)
        rows += [(f"long{number}.wav", 0.25 * row, 0.25 * row + 0.2, name) for row, name in enumerate(PITCHES)]
    return rows


HEADER = ("path", "start", "end", "label")


def test_a_table_of_files(tmp_path: Path) -> None:
    data = tones(tmp_path, 10)
    rows = [(f"{name}/{row:03}.wav", name) for name in PITCHES for row in range(10)]
    heard = Hearing()
    made = opened(f"csv:{write_table(tmp_path / 'all.csv', rows)}", heard)
    assert made.info.fingerprint == opened(f"folder:{data}").info.fingerprint
    assert "sounds from column path, labels from column label" in heard.notes


def test_frames_are_what_clips_cut_by_hand_are(tmp_path: Path) -> None:
    """The same samples, fingerprint and features, whether a table cuts them out of recordings or files hold them."""
    rows = recordings(tmp_path / "long")
    whole = []
    for number, (path, start, end, name) in enumerate(rows):
        import soundfile

        values, rate = soundfile.read(tmp_path / "long" / str(path), dtype="float32")
        first, last = round(float(str(start)) * rate), round(float(str(end)) * rate)
        write_sound(tmp_path / "cut" / f"{number}.wav", values[first:last], rate)
        whole.append((f"{number}.wav", name, path))
    frames = opened(f"csv:{write_table(tmp_path / 'long' / 'all.csv', rows, HEADER)}")
    clips = opened(f"csv:{write_table(tmp_path / 'cut' / 'all.csv', whole, ('path', 'label', 'group'))}")
    assert frames.info.fingerprint == clips.info.fingerprint
    for preprocess in (LONG, LONG.model_copy(update={"sample_rate": 8000, "samples": 1600, "high_hz": 4000.0})):
        made = [features_of(data.train, preprocess) for data in (frames, clips)]
        order = [np.argsort(data.train.contents) for data in (frames, clips)]
        assert torch.equal(made[0][order[0]], made[1][order[1]])


def features_of(split: Split, preprocess: AudioPreprocess) -> torch.Tensor:
    return model_input(torch.from_numpy(windows(split, np.arange(len(split)), preprocess)), preprocess)


@pytest.mark.parametrize("rate", [RATE, 8000])
def test_what_is_stored_is_what_is_decoded(tmp_path: Path, rate: int) -> None:
    data = opened(f"csv:{write_table(tmp_path / 'all.csv', recordings(tmp_path), HEADER)}")
    preprocess = LONG.model_copy(update={"sample_rate": rate, "samples": rate // 5})
    stored = store_waves(data.train, rate, tmp_path / "store", Silent())
    rows = np.array([3, 0, 5, 3])
    expected = windows(data.train, rows, preprocess, Decoding(data.train, rate))
    assert np.array_equal(windows(data.train, rows, preprocess, stored), expected)
    assert np.abs(expected).max() > 0.2
    written = sum(path.stat().st_size for path in (tmp_path / "store").iterdir())
    assert written == bytes_of(data.train, rate)


def test_a_recording_that_was_changed_is_not_stored(tmp_path: Path) -> None:
    """Parts of it would lie elsewhere in the file."""
    data = opened(f"csv:{write_table(tmp_path / 'all.csv', recordings(tmp_path), HEADER)}")
    write_sound(tmp_path / data.train.ids[0].partition("[")[0], tone(440, 0, 0.1))
    with pytest.raises(KdcError, match="was changed while it was used"):
        store_waves(data.train, RATE, tmp_path / "store", Silent())


def test_parts_of_a_recording_at_the_rate_of_the_model_share_what_is_stored(tmp_path: Path) -> None:
    """Overlapping windows, a hundred of a second: a hundred times less on disk than each by itself."""
    write_sound(tmp_path / "a.wav", tone(440, 0, 4.0))
    write_sound(tmp_path / "b.wav", tone(700, 1, 4.0))
    write_sound(tmp_path / "c.wav", tone(300, 1, 4.0))
    rows = [
        (f"{name}.wav", 0.03 * n, 0.03 * n + 1, "x" if n % 2 else "y", split)
        for name, split in (("a", "train"), ("b", "validation"), ("c", "test"))
        for n in range(100)
    ]
    data = opened(f"csv:{write_table(tmp_path / 'all.csv', rows, (*HEADER, 'split'))}")
    assert bytes_of(data.train, RATE) == 4 * 4 * RATE


def test_parts_of_one_recording_stay_in_one_split(tmp_path: Path) -> None:
    heard = Hearing()
    data = opened(f"csv:{write_table(tmp_path / 'all.csv', recordings(tmp_path, 12), HEADER)}", heard)
    files = [{name.partition("[")[0] for name in split.ids} for split in (data.train, data.validation, data.test)]
    assert all(len(names) > 0 for names in files)
    assert not files[0] & files[1]
    assert not files[0] & files[2]
    assert not files[1] & files[2]
    assert any("what is cut from one recording stays in one split" in note for note in heard.notes)
    assert any("whole groups" in note for note in heard.notes)
    assert not any("a speaker may be" in note for note in heard.notes)


def test_a_column_of_speakers_keeps_them_apart(tmp_path: Path) -> None:
    tones(tmp_path, 20)
    rows = [(f"{name}/{row:03}.wav", name, f"speaker {row % 10}") for name in PITCHES for row in range(20)]
    heard = Hearing()
    data = opened(f"csv:{write_table(tmp_path / 'all.csv', rows, ('path', 'label', 'speaker'))}", heard)
    speakers = [{int(name[-7:-4]) % 10 for name in split.ids} for split in (data.train, data.validation, data.test)]
    assert [len(each) for each in speakers] == [7, 1, 2]
    assert len(speakers[0] | speakers[1] | speakers[2]) == 10
    assert data.info.counts == {"train": 42, "validation": 6, "test": 12}
    assert "test: about 20 % of train split off, 2 of 10 whole groups (12 of 60 sounds)" in heard.notes


def test_groups_in_several_stated_splits_are_said(tmp_path: Path) -> None:
    tones(tmp_path, 9)
    rows = [
        (f"{name}/{row:03}.wav", name, f"s{row}" if row else "s1", ("train", "val", "test")[row % 3])
        for name in PITCHES
        for row in range(9)
    ]
    heard = Hearing()
    opened(f"csv:{write_table(tmp_path / 'all.csv', rows, ('path', 'label', 'speaker', 'split'))}", heard)
    (note,) = [note for note in heard.notes if "groups have sounds in several splits" in note]
    assert note.startswith("1 of 8 groups")
    assert "e.g. s1 in train, validation" in note


def test_groups_split_by_hand() -> None:
    """Twelve groups of two samples, a copy that glues two of them, and one sample without a group."""
    digests = [bytes([n]) * 32 for n in range(24)]
    digests[22] = digests[0]
    labels = ["a", "b"] * 12
    groups = [f"g{n // 2}" for n in range(24)]
    groups[5] = ""
    rows, notes = split_off_groups(digests, labels, groups, ("test", "validation"), "sounds")
    assert sorted(row for members in rows.values() for row in members) == [*range(24)]
    split_of = {row: name for name, members in rows.items() for row in members}
    for group in {*groups} - {""}:
        members = [row for row in range(24) if groups[row] == group]
        assert len({split_of[row] for row in members}) == 1, group
    assert split_of[0] == split_of[22] == split_of[23]
    assert {labels[row] for row in rows["test"]} == {labels[row] for row in rows["validation"]} == {"a", "b"}
    assert len(rows["train"]) >= 14
    assert notes[0].startswith("test: about 20 % of train split off, ")
    shuffled = np.random.default_rng(0).permutation(24)
    renamed = [f"x{groups[n]}" if groups[n] else "" for n in shuffled]
    again, _ = split_off_groups(
        [digests[n] for n in shuffled], [labels[n] for n in shuffled], renamed, ("test", "validation"), "sounds"
    )
    assert {name: sorted(int(shuffled[n]) for n in members) for name, members in again.items()} == rows


def test_a_class_of_one_speaker_cannot_be_split(tmp_path: Path) -> None:
    tones(tmp_path, 9)
    rows = [(f"{name}/{row:03}.wav", name, name) for name in PITCHES for row in range(9)]
    with pytest.raises(KdcError, match=r"class high has sounds of 1 group \(such as a speaker\)"):
        opened(f"csv:{write_table(tmp_path / 'all.csv', rows, ('path', 'label', 'speaker'))}")


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([("a.wav", 0, 9, "x")], HEADER, "line 2 is from 0 to 9 s, and the recording has 0.2 s"),
        ([("a.wav", 0.1, 0.1, "x")], HEADER, "line 2 is from 0.1 to 0.1 s"),
        ([("a.wav", -1, 0.1, "x")], HEADER, "line 2 is from -1 to 0.1 s"),
        ([("a.wav", "now", 0.1, "x")], HEADER, "line 2: 'now' is no time in seconds"),
        ([("a.wav", "nan", 0.1, "x")], HEADER, "line 2: 'nan' is no time in seconds"),
        ([("a.wav", 0.1, 0.10001, "x")], HEADER, "which holds no sound"),
        ([("a.wav", 0, "x")], ("path", "start", "label"), "has a column start, and none for the ends"),
        ([("", "x")], ("path", "label"), "the path of the sound is missing"),
        ([("a.wav", "")], ("path", "label"), "the label is missing"),
        ([("nowhere.wav", "x"), ("a.wav", "y")], ("path", "label"), "nowhere.wav cannot be read: No such file"),
        ([("a.wav", "x", " ")], ("path", "label", "group"), "the group is missing"),
        ([("a.wav", "x")], ("sounds", "label"), "has no column for the sounds; its columns: sounds, label"),
        ([("a.wav", "x"), ("a.wav", "x")], ("path", "label"), "the sound a.wav stands twice"),
    ],
)
def test_wrong_rows_are_refused(
    tmp_path: Path, rows: list[tuple[object, ...]], header: tuple[str, ...], said: str
) -> None:
    write_sound(tmp_path / "a.wav", tone(440, 0))
    write_sound(tmp_path / "b.wav", tone(700, 0))
    more = [("b.wav", *row[1:-1], "y") for row in rows[:1]] if header == HEADER and rows[0][1] == 0 else []
    if said == "which holds no sound":
        more = [("b.wav", 0, 0.1, "y")]
    if "no column" not in said and len({row[-1] for row in rows}) == 1 and not more:
        more = [("b.wav", *rows[0][1:-1], "y")] if "group" not in header else [("b.wav", "y", "g")]
    with pytest.raises(KdcError, match=said):
        opened(f"csv:{write_table(tmp_path / 'all.csv', [*rows, *more], header)}")


def test_parquet_with_the_files_inside(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    waves = {name: [tone(pitch, row) for row in range(8)] for name, pitch in PITCHES.items()}
    columns = {
        "audio": [{"bytes": encoded(wave), "path": "x.wav"} for each in waves.values() for wave in each],
        "label": [name for name in waves for _ in range(8)],
        "speaker": [f"s{row}" for _ in waves for row in range(8)],
    }
    parquet.write_table(pa.table(columns), tmp_path / "all.parquet", row_group_size=5)
    heard = Hearing()
    data = opened(f"parquet:{tmp_path / 'all.parquet'}", heard)
    assert sum(data.info.counts.values()) == 24
    assert "sounds from column audio, labels from column label, groups from column speaker" in heard.notes
    tones(tmp_path / "files", 8)
    first = {"path": [f"{n}/{r:03}.wav" for n in PITCHES for r in range(8)], "label": columns["label"]}
    parquet.write_table(pa.table(first), tmp_path / "files" / "all.parquet")
    assert sum(opened(f"parquet:{tmp_path / 'files' / 'all.parquet'}").info.counts.values()) == 24


def test_a_data_set_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    waves = [tone(pitch, row) for pitch in PITCHES.values() for row in range(8)]
    rows = {"voice": [{"bytes": encoded(wave), "path": None} for wave in waves], "sort": [n // 8 for n in range(24)]}
    made = datasets.Dataset.from_dict(rows).cast_column("voice", datasets.Audio())
    made = made.cast_column("sort", datasets.ClassLabel(names=[*PITCHES]))
    made.save_to_disk(tmp_path / "saved")
    heard = Hearing()
    data = opened(f"hf:{tmp_path / 'saved'}", heard)
    assert data.info.class_names == tuple(PITCHES)
    assert "sounds from column voice, labels from column sort" in heard.notes
    assert data.train.read(0).length == 800


def test_parts_of_one_recording_stay_together_where_every_row_holds_it(tmp_path: Path) -> None:
    """As bytes, in Parquet and in a data set of Hugging Face: overlapping parts would else be in train and in test."""
    datasets = pytest.importorskip("datasets")
    from pyarrow import parquet, table

    rows = recordings(tmp_path, 9)
    whole = [(tmp_path / str(path)).read_bytes() for path, *_ in rows]
    columns = {
        "audio": [{"bytes": content, "path": None} for content in whole],
        "start": [row[1] for row in rows],
        "end": [row[2] for row in rows],
        "label": [row[3] for row in rows],
    }
    parquet.write_table(table(columns), tmp_path / "all.parquet")
    saved = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio())
    saved.save_to_disk(tmp_path / "saved")
    expected = opened(f"csv:{write_table(tmp_path / 'all.csv', rows, HEADER)}")
    for reference in (f"parquet:{tmp_path / 'all.parquet'}", f"hf:{tmp_path / 'saved'}"):
        heard = Hearing()
        made = opened(reference, heard)
        assert made.info.fingerprint == expected.info.fingerprint
        assert any("stays in one split" in note and "from start to end" in note for note in heard.notes)
        for split in (made.train, made.validation, made.test):
            numbers = sorted(int(each.rpartition("/")[2]) // 3 for each in split.ids)
            assert all(numbers.count(number) == 3 for number in numbers)
        assert {made.train.read(row).length for row in range(len(made.train))} == {800}


def test_frames_late_in_a_long_recording_are_told_apart(tmp_path: Path) -> None:
    rows = []
    for name, pitch in PITCHES.items():
        write_sound(tmp_path / f"{name}.wav", np.resize(tone(pitch, 0, 1, 1000), 1_100_000), 1000)
        rows += [
            (f"{name}.wav", 1000.001 + 0.001 * n, 1000.051 + 0.001 * n, name, ("test", "val")[n] if n < 2 else "train")
            for n in range(4)
        ]
    made = opened(f"csv:{write_table(tmp_path / 'all.csv', rows, (*HEADER, 'split'))}")
    assert sum(made.info.counts.values()) == 12
    assert "high.wav[1000.001-1000.051]" in made.test.ids


@pytest.mark.parametrize("names", [("start_ms", "end_ms"), ("Onset (s)", "end_sample"), ("begin_in_seconds", "x")])
def test_times_in_other_units_are_not_passed_over(tmp_path: Path, names: tuple[str, str]) -> None:
    data = tones(tmp_path / "data", 4)
    rows = [(f"{name}/{row:03}.wav", 0, 100, name) for name in PITCHES for row in range(4)]
    with pytest.raises(KdcError, match="parts are cut by start and end, in seconds") as caught:
        opened(f"csv:{write_table(data / 'all.csv', rows, ('path', *names, 'label'))}")
    assert "where whole recordings are meant" in caught.value.hint
