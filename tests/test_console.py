"""What kdc shows on a terminal is taken away again."""

import pytest

from compressor.console import _Live


def test_a_bar_that_is_not_done_gives_the_cursor_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    live = _Live()
    live.at("epochs", 1, 3)
    assert "\x1b[?25l" in capsys.readouterr().err
    live.end()
    assert "\x1b[?25h" in capsys.readouterr().err
    live.end()
    assert capsys.readouterr().err == ""
