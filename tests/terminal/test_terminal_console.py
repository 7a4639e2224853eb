"""What kdc shows on a terminal is taken away again, is printable, and never decides how a command ends."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.cli import app as cli
from compressor.errors import KdcError
from compressor.terminal import console
from compressor.terminal.console import _Live, progress_for, show_error, show_json, show_line, show_result
from compressor.terminal.tables import table
from tests.forked import interpreter

BAD = "x\nkdc: error: forged\x1b[31m\u202e"
SHOWN = r"x\nkdc: error: forged\x1b[31m\u202e"


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


@pytest.mark.parametrize("live", [False, True])
def test_nothing_foreign_acts(live: bool, capsys: pytest.CaptureFixture[str]) -> None:
    progress: Any = _Live() if live else progress_for(quiet=False)
    progress.note(BAD)
    progress.warn(BAD)
    progress.note("[red]no markup[/red] :smiley:")
    show_error(KdcError(BAD, BAD))
    show_line(BAD)
    show_result(table([("name",), (BAD,)]))
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        SHOWN,
        f"warning: {SHOWN}" if live else f"kdc: warning: {SHOWN}",
        "[red]no markup[/red] :smiley:",
        f"kdc: error: {SHOWN}",
        f"  -> {SHOWN}",
    ]
    assert out.splitlines() == [SHOWN, "name", SHOWN]


def test_a_bar_shows_names_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    live = _Live()
    live.at("of [red]x[/red]\x1b[5n", 1, 3)
    live.end()
    err = capsys.readouterr().err
    assert r"[red]x[/red]\x1b[5n" in err
    assert "\x1b[5n" not in err


class Narrow(io.TextIOWrapper):
    def __init__(self, encoding: str) -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding=encoding)

    def text(self) -> str:
        return self.kept.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stdout_without_our_signs_gets_others(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Narrow(encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    show_result("p50 ≤ 3 − 1, 数")
    assert stdout.text() == "p50 <= 3 - 1, \\u6570\n"
    show_json(json.dumps({"a": "≤ 😀é"}, ensure_ascii=False))
    assert json.loads(stdout.text().partition("\n")[2]) == {"a": "≤ 😀é"}


def test_a_stream_that_fails_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stdout in (None, Path("/dev/full").open("w")):  # noqa: SIM115  (closed by what is tested)
        monkeypatch.setattr(sys, "stdout", stdout)
        show_result("x" * 100_000)
        assert "kdc: warning: the result could not be printed" in capsys.readouterr().err
        if stdout is not None:
            stdout.close()
    monkeypatch.setattr(sys, "stderr", None)
    progress_for(quiet=False).note("to nobody")
    show_error(KdcError("to nobody"))
    assert console._write(None, "x") is not None


def kdc(
    redirect: str, *arguments: str, program: str = sys.executable, **environment: str
) -> "subprocess.CompletedProcess[str]":
    line = f'"$0" -m compressor "$@" {redirect}'
    command = ["bash", "-c", line, program, *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [">&-", "> /dev/full", "| true", ">&- 2>&-", "> /dev/full 2> /dev/full"])
@pytest.mark.parametrize("command", ["check", "report"])
def test_the_verdict_does_not_depend_on_printing(command: str, redirect: str, bundle: Path) -> None:
    if redirect == "| true":
        redirect = "| true; exit ${PIPESTATUS[0]}"
    as_json = ["--json"] if command == "check" else ["--format", "json"]
    for more, program in (([], sys.executable), (as_json, str(interpreter()))):  # really started, and forked
        done = kdc(redirect, command, str(bundle), *more, program=program)
        assert done.returncode == 0, done.stderr
        assert "bug in kdc" not in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_report_without_utf_8(environment: dict[str, str], bundle: Path) -> None:
    """shared case report-without-utf8: nothing was printed, and a bundle that passes ended in 2."""
    done = kdc("", "report", str(bundle), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS  the budget holds on here")
    told = kdc("", "report", str(bundle), "--format", "json", **environment)
    assert json.loads(told.stdout)["verdict"] == "pass"


def test_whoever_stops_reading_the_help_saw_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kdc --help | head -1` ended in 1, which means that the gate fails."""
    stdout = Narrow("utf-8")
    monkeypatch.setattr(stdout, "write", lambda text: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["kdc", "--help"])
    assert cli.run() == 0


def test_a_library_that_ends_the_program_has_not_passed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(**_: object) -> None:
        sys.exit(0)

    monkeypatch.setattr(cli, "app", ends)
    monkeypatch.setattr(sys, "argv", ["kdc", "check", "x"])
    assert cli.run() == 2
    assert "a library ended the program with 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "place"),
    [(["check", ""], "after check"), (["teach", "--out", ""], "after --out"), (["teach", "--out="], "of --out")],
)
def test_an_empty_argument_is_not_the_current_folder(
    arguments: list[str], place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kdc", *arguments])
    assert cli.run() == 2
    assert capsys.readouterr().err.startswith(f"kdc: error: the argument {place} is empty\n")


def test_columns_of_a_table_start_below_each_other_in_every_script() -> None:
    """A Chinese sign takes two cells of a terminal."""
    assert table([("a", "b", ""), ("\u732b\u732b", "long", "x"), ("abcde", "", "")], indent="  ") == "\n".join(
        ["  a      b", "  \u732b\u732b   long  x", "  abcde"]
    )
    assert table([]) == ""
