"""The example's folder of recorded prompts."""

import wave
from pathlib import Path

import pytest

from examples import prompts


def write(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * round(8000 * seconds)))


def test_so_many_prompts_of_each_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for speaker in prompts.SPEAKERS.values():
        for number in range(4):
            write(tmp_path / "sounds" / speaker / f"{number}.wav", 1.0 + number)
        write(tmp_path / "sounds" / speaker / "digits" / "0.wav", 2)
        write(tmp_path / "sounds" / speaker / "beep.wav", 0.9)
    prompts.main(tmp_path / "all", 10, tmp_path / "sounds")
    for language in prompts.SPEAKERS:
        names = sorted(path.name for path in (tmp_path / "all" / language).iterdir())
        assert names == ["0.wav", "1.wav", "2.wav", "3.wav", "digits-0.wav"]
    assert "5 of 5 prompts, all by ru_RU_f_IvrvoiceRU" in capsys.readouterr().out
    prompts.main(tmp_path / "some", 3, tmp_path / "sounds")
    prompts.main(tmp_path / "again", 3, tmp_path / "sounds")
    some, again = ({path.name for path in (tmp_path / each / "French").iterdir()} for each in ("some", "again"))
    assert some == again
    assert len(some) == 3


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="apt-get install asterisk-core-sounds-en-wav"):
        prompts.main(tmp_path / "out", 3, tmp_path)
