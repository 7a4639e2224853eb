"""What a terminal shows at the end of export, measure and report."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import compressor
from compressor.report import build_report, finish, summary, to_json, to_markdown, verdict_line
from compressor.schema.report import Lengths, RealTime, RealTimeRow, Spread, Verdict
from compressor.terminal.console import rendered_text, show_summary
from tests.kit import Ended
from tests.report.test_report_formats import HOSTILE, STATES, hostile, nothing_acts, state

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("verdict", STATES)
def test_it_fits_80_columns_and_says_what_matters(make_bundle: Make, verdict: Verdict) -> None:
    report = state(make_bundle, verdict)
    text = rendered_text(summary(report, "bundle"))
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert lines[0].split()[0] == verdict.upper()
    assert any(line.split()[:1] == ["ships"] for line in lines)
    assert lines[-2:] == [line for line in lines if "bundle/report.md" in line or "--format md" in line]
    assert ("next" in text.split()) == (verdict != "pass")
    if report.winner is not None:
        row = report.rows[0]
        assert row.p50_ms is not None
        said = "p50            2.00 [1.98–2.01] ms"
        assert said in text
        assert "95 % intervals; p50: n = 40 blocks of 6 calls;" in text
        assert "on Intel(R) Processor N100, 2 threads" in text
    if verdict == "fail":
        assert "fails   ort-fp32 size_mb: 0.8000 MB, limit ≤ 0.5 MB (60 % over)" in text
        assert "next    kdc students --profile PROFILE.yaml" in text


def test_what_the_figures_rest_on_is_said_to_its_end(make_bundle: Make) -> None:
    report = build_report(
        make_bundle(machine={"cpu": "A processor of a name that is longer than those of most, (R) (TM) 5.0 GHz"})
    )
    row = report.rows[0]
    assert row.p50_ratio is not None
    longer = "rounds, of each block the fastest 20 % of the calls"
    row = row.model_copy(update={"p50_ratio": row.p50_ratio.model_copy(update={"of": longer})})
    report = report.model_copy(update={"rows": (row, report.rows[1])})
    said = " ".join(rendered_text(summary(report, "bundle")).split())
    assert (
        f"{longer}; accuracy: n = 200 test samples; on A processor of a name that is longer than those of most" in said
    )
    assert "…, 2 threads, batch 1." in said
    assert "…, 2 threads, batch 1." in to_markdown(report).partition("<details>")[0]


def test_how_long_a_sample_is_where_that_varies(make_bundle: Make) -> None:
    report = build_report(make_bundle())
    tokens = Spread(median=9, lowest=3, highest=20, n=200)
    read = RealTimeRow(variant=report.rows[0].name, seconds=0.5, ms_per_second=None, factor=None)
    for sample, update, said in (
        ("text", {"lengths": Lengths(timed=64, test_tokens=tokens, latency=(), accuracy=())}, "64 tokens a text"),
        ("sound", {"real_time": RealTime(rows=(read,))}, "0.500 seconds a sound"),
    ):
        told = report.model_copy(update={"sample": sample, **update})
        assert f"2 threads, batch 1, {said}." in " ".join(rendered_text(summary(told, "bundle")).split())
        assert f"2 threads, batch 1, {said}." in to_markdown(told).partition("<details>")[0]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("verdict", ["pass", "fail", "unmeasured"])
def test_hostile_names_are_text(make_bundle: Make, name: str, verdict: Verdict) -> None:
    report = hostile(build_report(make_bundle(**STATES[verdict])), name)
    shown = summary(report, "bundle", allow_unmeasured=True)
    text = rendered_text(shown)
    nothing_acts(text)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 60
    if name == HOSTILE["script"]:
        assert "<script>alert" in text
    coloured = rendered_text(shown, colours=True)
    nothing_acts(COLOUR.sub("", coloured))


def test_markup_of_rich_in_a_name_is_text(make_bundle: Make) -> None:
    report = hostile(build_report(make_bundle()), "[red]x[/red] :smiley: [link=http://z]y[/link]")
    assert "[red]x[/red] :smiley: [link=http://z]y[/link]" in " ".join(rendered_text(summary(report, "b")).split())


def test_what_is_to_be_typed_can_be_pasted(make_bundle: Make) -> None:
    """A long command is broken before options, and goes on after a backslash."""
    broken = {"x": {"precision": "int8", "executed": "fp32"}}
    variants = {**{f"v{number}": {"p50": 2.0 + number} for number in range(4)}, **broken, "t": {"role": "teacher"}}
    lines = rendered_text(summary(build_report(make_bundle(variants)), "my bundle")).splitlines()
    start = next(index for index, line in enumerate(lines) if line.split()[:1] == ["next"])
    command = []
    for line in lines[start:]:
        command.append(line[10:].strip())
        if not line.endswith("\\"):
            break
    assert len(command) > 1
    joined = "".join(part.removesuffix("\\") for part in command)
    whole = "kdc export RUN --profile PROFILE.yaml --out 'my bundle' --overwrite" + 4 * " --target onnxruntime-fp32"
    assert joined == whole


SPACED = "/srv/models/of the students/" + "a long name/" * 9 + "it's   the bundle"


def typed(text: str, title: str) -> list[list[str]]:
    """What a shell makes of the commands beside `title`."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.split()[:1] == [title])
    end = next((index for index in range(start + 1, len(lines)) if lines[index][:4].strip()), len(lines))
    indent = lines[start].index(lines[start].split(maxsplit=1)[1])
    assert {line[2:indent].strip() for line in lines[start + 1 : end]} <= {""}
    pasted = "\n".join(line[indent:] for line in lines[start:end]).replace("\\\n", "")
    return [shlex.split(command) for command in pasted.splitlines()]


@pytest.mark.parametrize("colours", [False, True])
def test_a_long_path_with_spaces_can_be_pasted(make_bundle: Make, colours: bool) -> None:
    """Whatever the width of the terminal, no command is folded or cut."""
    text = COLOUR.sub("", rendered_text(summary(state(make_bundle, "inconclusive"), SPACED), colours=colours))
    assert typed(text, "next")[0] == ["kdc", "measure", SPACED, "--rounds", "80", "--seconds", "600"]
    assert typed(text, "report") == [[f"{SPACED}/report.md"], ["kdc", "report", SPACED, "--format", "md"]]


def test_after_a_comparison_the_command_that_shows_it_is_named(make_bundle: Make, tmp_path: Path, kdc: Kdc) -> None:
    """report.md in the bundle does not hold it."""
    bundle = make_bundle(budget={"p50_ms": 9})
    finish(bundle)
    earlier = tmp_path / "the earlier one"
    shutil.copytree(bundle, earlier)
    again = ["kdc", "report", str(bundle), "--format", "md", "--baseline", str(earlier)]
    told = kdc("report", bundle, "--baseline", earlier)
    assert told.code == 0, told.err
    for text in (told.out, compressor.check(bundle, baseline=earlier).to_text()):
        assert typed(text, "report") == [again]
        assert "report.md" not in text
    shown = kdc(*again[1:])
    assert "**Against the baseline:**" in shown.out


class Terminal:
    """A stdout that is one."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_are_for_terminals_and_no_color_is_heeded(
    make_bundle: Make, monkeypatch: pytest.MonkeyPatch, no_colour: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    stdout: Any = Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    show_summary(summary(state(make_bundle, "fail"), "bundle"))
    assert COLOUR.sub("", stdout.text).startswith("FAIL  the budget does not hold on mini-pc")
    colours = set(COLOUR.findall(stdout.text)) - {"\x1b[0m", "\x1b[1m", "\x1b[2m"}
    assert bool(colours) != no_colour


def test_a_pipe_gets_no_colours_even_so(make_bundle: Make, kdc: Kdc) -> None:
    bundle = make_bundle(budget={"p50_ms": 9})
    finish(bundle)
    out = kdc("report", bundle).out
    assert "\x1b" not in out
    assert out == rendered_text(summary(build_report(bundle), str(bundle)))


def test_quiet_json_and_details(make_bundle: Make, kdc: Kdc) -> None:
    bundle = make_bundle(budget={"p50_ms": 9})
    finish(bundle)
    report = build_report(bundle)
    assert kdc("report", bundle, "--quiet").out == verdict_line(report) + "\n"
    assert kdc("report", bundle, "--json").out == to_json(report)
    assert kdc("report", bundle, "--format", "md").out == (bundle / "report.md").read_text(encoding="utf-8")
    ended = kdc("report", bundle, "--json", "--format", "md")
    assert (ended.code, ended.out) == (2, "")
    assert "--json and --format md are two formats" in ended.err
