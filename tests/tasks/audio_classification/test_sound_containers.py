"""Sound files of which libsndfile leaves a part out, or does not say how long they are: read whole or refused, alike by
training and on a device."""

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.tasks.audio_classification import containers
from compressor.tasks.audio_classification.reading import decode
from targets import sound_files
from tests.tasks.audio_classification.kit import encoded, tone

QUIET = np.zeros(16000, np.float32)
WAVE = np.concatenate([QUIET, tone(440, 0, 1, 16000), QUIET, tone(700, 1, 1, 16000)])
FRAME = 576
"""Values of a frame of MP3 at 16 kHz."""


def mp3(mode: str) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    # Two channels, so that the bit rate of a silent beginning is far from the others.
    soundfile.write(buffer, np.stack([WAVE, WAVE[::-1]], 1), 16000, format="MP3", bitrate_mode=mode)
    return buffer.getvalue()


def frames_of(content: bytes) -> list[bytes]:
    """The frames of an MP3 at 16 kHz (MPEG-2, layer 3), by their headers; the first says how many follow."""
    rates = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    frames, at = [], 0
    while at < len(content):
        assert content[at] == 0xFF
        assert content[at + 1] >> 1 == 0x79
        size = 72 * rates[content[at + 2] >> 4] * 1000 // 16000 + (content[at + 2] >> 1 & 1)
        frames.append(content[at : at + size])
        at += size
    return frames


def both(content: bytes, folder: Path) -> tuple[int, str, str]:
    """How many values training reads, and what it says, and the example program; both have the same values."""
    path = folder / "sound.bin"
    path.write_bytes(content)
    try:
        sound = sound_files.read_sound(path)
        on_device, device = sound.mono(0, len(sound)).astype(np.float32), ""
    except sound_files.SoundError as error:
        on_device, device = np.zeros(0, np.float32), str(error)
    try:
        values = decode(content, "a file").values
    except KdcError as error:
        assert not len(on_device)
        return 0, str(error), device
    assert np.array_equal(on_device, values)
    return len(values), "", ""


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_that_does_not_say_how_long_it_is_is_read_to_its_end(mode: str, tmp_path: Path) -> None:
    """libsndfile reckons from the first frame, and reads no further: of the variable bit rate it leaves most out."""
    content = mp3(mode)
    frames = frames_of(content)
    bare = b"".join(frames[1:])
    assert both(content, tmp_path) == (len(WAVE), "", "")
    id3 = b"ID3\x03\0\0\0\0\x0f\0" + bytes(15 * 128)
    for whole in (bare, id3 + bare, bare + b"TAG" + bytes(125), id3 + bare + b"TAG" + bytes(125)):
        assert both(whole, tmp_path) == (FRAME * (len(frames) - 1), "", "")
    made, expected = decode(bare, "x").values, (WAVE + WAVE[::-1]) / 2
    delay = int(np.argmax([made[at : at + 60000] @ expected[:60000] for at in range(2000)]))
    assert np.corrcoef(made[delay : delay + 60000], expected[:60000])[0, 1] > 0.95
    count, said, device = both(bare + bare[: len(bare) // 3], tmp_path)
    assert count > FRAME * (len(frames) - 1) or "cut short or damaged" in said
    count, said, device = both(bare[:-40], tmp_path)
    assert (count, said) == (0, "a file cannot be decoded: it is cut short or damaged")
    assert device.endswith("cut short or damaged")


def test_an_mp3_that_says_how_long_it_is(tmp_path: Path) -> None:
    """What is behind that is not left out in silence, but for tags and what fills a file up."""
    content = mp3("VARIABLE")
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, 6000, 1, 0xA0000000) + b"\1" * 6000
    for more in (b"TAG" + bytes(125), ape, bytes(9000), b"x" * 1000):
        assert both(content + more, tmp_path) == (len(WAVE), "", "")
    for more in (content, b"ID3\x03\0\0\0\0\0\0" + content):
        _, said, device = both(content + more, tmp_path)
        assert f"{len(more):,} bytes follow the sound that its beginning tells of" in said
        assert f"{len(more):,} bytes follow the sound" in device
    for less in (content[: len(content) // 2], b"".join(frames_of(content)[:-6])):
        _, said, device = both(less, tmp_path)
        assert "cut short or damaged" in said
        assert "cut short or damaged" in device


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_what_is_missing_of_an_ogg_is_not_passed_over(subtype: str, tmp_path: Path) -> None:
    content = encoded(WAVE, 16000, "OGG", subtype)
    assert both(content, tmp_path) == (len(WAVE), "", "")
    assert both(content + b"TAG" + bytes(125), tmp_path)[0] == len(WAVE)
    cases: list[tuple[bytes, str]] = [
        (content[:-100], "cut short"),
        (content[: content.rindex(b"OggS") + 20], "cut short"),
        (content + content, "several "),
        (content[: len(content) // 2] + bytes(40) + content[len(content) // 2 :], "damaged at byte "),
    ]
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for broken, why in (*cases, (bytes(flipped), "damaged at byte ")):
        count, said, device = both(broken, tmp_path)
        assert count == 0
        assert said.startswith("a file cannot be decoded: it is ")
        assert why in said
        assert why in device


def test_files_that_a_program_wrote_into_a_pipe(tmp_path: Path) -> None:
    """It could not go back to say how long they are."""
    flac = bytearray(encoded(WAVE, 16000, "FLAC"))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    wav = bytearray(encoded(WAVE, 16000))
    at = wav.index(b"data")
    wav[4:8] = wav[at + 4 : at + 8] = b"\xff" * 4
    au = bytearray(encoded(WAVE, 16000, "AU"))
    au[8:12] = b"\xff" * 4
    for content in (flac, wav, au):
        assert both(bytes(content), tmp_path) == (len(WAVE), "", "")
    _, said, device = both(bytes(flac[:-200]), tmp_path)
    assert "flac decoder lost sync" in said
    assert "flac decoder lost sync" in device


@pytest.mark.parametrize("how", ["WAV ALAW", "WAV MS_ADPCM", "AIFF PCM_16", "AU PCM_16", "RF64 PCM_16", "W64 PCM_16"])
def test_other_kinds_that_are_cut_short(how: str, tmp_path: Path) -> None:
    content = encoded(WAVE, 16000, *how.split())
    assert both(content, tmp_path)[0] >= len(WAVE)
    _, said, device = both(content[:-3000], tmp_path)
    assert "it is cut short, " in said
    assert "cut short, " in device


def test_an_empty_file(tmp_path: Path) -> None:
    assert both(b"", tmp_path) == (0, "a file cannot be decoded: it is empty", f"{tmp_path / 'sound.bin'}: it is empty")


def test_soundfile_without_its_c_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "soundfile.py").write_text("raise OSError('sndfile library not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "soundfile", raising=False)
    with pytest.raises(KdcError, match=r"sound needs libsndfile, .*: sndfile library not found") as caught:
        containers.require_decoder()
    assert (caught.value.exit_code, caught.value.hint) == (4, "sudo apt-get install libsndfile1")


@pytest.mark.parametrize("make", [lambda: encoded(WAVE, 16000, "OGG", "OPUS"), lambda: mp3("VARIABLE")])
def test_a_part_has_the_values_of_the_whole(make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    content = make()
    whole = decode(content, "x").values
    monkeypatch.setattr(containers, "BLOCK", 5000)
    assert np.array_equal(decode(content, "x").values, whole)
    with containers.opened(content, "x") as file:
        part = file.part(30_001, 20_000)
    assert np.array_equal(part.mean(axis=1, dtype=np.float64).astype(np.float32), whole[30_001:50_001])
