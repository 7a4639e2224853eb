"""`kdc report A B`, `--baseline` and `--history`: bundles beside each other, and over time."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compressor
from compressor import KdcError
from compressor.report import (
    build_report,
    entry_of,
    finish,
    remember,
    side_by_side,
    side_by_side_table,
    trend_table,
)
from compressor.report.gate import failed_lines
from compressor.report.history import read_history, sparkline
from compressor.schema.base import parse
from compressor.schema.history import HistoryEntry
from compressor.schema.release import Release
from compressor.schema.side_by_side import SideBySide
from tests.kit import Ended

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
DIGESTS = np.arange(200, dtype=np.uint64)


@pytest.fixture
def bundles(make_bundle: Make, tmp_path: Path) -> tuple[Path, Path]:
    """Sealed: an old bundle that is right on 195 of 200 samples, and a new one on 170."""
    for name, wrong, p50 in (("old", 5, 2.0), ("new", 30, 1.5)):
        made = make_bundle({"s": {"wrong": wrong, "p50": p50}}, digests=DIGESTS, classes=2, spread=0.001)
        finish(made)
        shutil.move(made, tmp_path / name)
    return tmp_path / "old", tmp_path / "new"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_bundles_stand_side_by_side_and_are_left_alone(bundles: tuple[Path, Path], kdc: Kdc) -> None:
    before = [content(bundle) for bundle in bundles]
    done = kdc("report", *bundles)
    assert (done.code, [content(bundle) for bundle in bundles]) == (0, before)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in done.out.splitlines() if line.startswith("|")}
    assert f"`{bundles[0]}` | `{bundles[1]}`" in done.out
    assert rows["accuracy %"] == "| accuracy % | 97.5 [94.3–98.9] | 85.0 [79.4–89.3] |"
    assert rows["p50 ms"] == "| p50 ms | 2.00 [2.00–2.00] | 1.50 [1.50–1.50] |"
    assert rows["verdict"] == "| verdict | pass | pass |"
    assert "in a session of its own" in done.out
    assert "tested on the same samples" not in done.out
    found = parse(SideBySide, json.loads(kdc("report", *bundles, "--format", "json").out), "stdout")
    reports = [build_report(bundle) for bundle in bundles]
    assert [column.shipped for column in found.columns] == [report.rows[0] for report in reports]


def test_other_test_samples_and_failures_are_said(bundles: tuple[Path, Path], make_bundle: Make, kdc: Kdc) -> None:
    third = make_bundle({"s|t": {"wrong": 3}}, {"size_mb": 0.1}, digests=DIGESTS + np.uint64(9))
    finish(third)
    done = kdc("report", bundles[0], third)
    assert "tested on the same samples" in done.out
    assert "| verdict | pass | **fail**: size_mb |" in done.out  # nothing can be shipped: what every variant fails


def test_latencies_of_other_conditions_are_said_not_to_compare(
    bundles: tuple[Path, Path], make_bundle: Make, kdc: Kdc
) -> None:
    same = kdc("report", *bundles).out
    assert "do not compare" not in same
    assert "| batch | 1 | 1 |" in same
    assert "| threads | 2 | 2 |" in same
    third = make_bundle(
        {"s": {"threads": 8}}, digests=DIGESTS, classes=2, profile_changes={"batch": 8, "threads": 8},
        session={"batch": 8}, machine={"cpu": "another"},
    )  # fmt: skip
    finish(third)
    done = kdc("report", bundles[0], third).out
    assert "Their latencies do not compare: batch, threads, the machine differ." in done
    assert "a sample is timed at" not in done
    assert "| batch | 1 | 8 |" in done
    assert "| threads | 2 | 8 |" in done
    assert "| machine | Intel(R) Processor N100 | another |" in done


def test_samples_of_other_lengths_do_not_compare(bundles: tuple[Path, Path]) -> None:
    found = side_by_side(list(bundles))
    for first, second, said in (
        ({"tokens": 16}, {"tokens": 64}, "| a sample is timed at | 16 tokens | 64 tokens |"),
        ({"seconds": 0.5}, {"seconds": 2.0}, "| a sample is timed at | 0.500 s | 2.00 s |"),
    ):
        told = [column.model_copy(update=each) for column, each in zip(found.columns, (first, second), strict=True)]
        table = side_by_side_table(SideBySide(columns=tuple(told)))
        assert said in table
        assert "Their latencies do not compare: the length of a sample differs." in table
        alike = side_by_side_table(SideBySide(columns=(told[0], told[0])))
        assert "do not compare" not in alike


def test_quiet_is_a_line(bundles: tuple[Path, Path], kdc: Kdc) -> None:
    done = kdc("report", *bundles, "--quiet")
    assert done.out == f"{bundles[0]}: pass on profile mini-pc; {bundles[1]}: pass on profile mini-pc\n"
    assert json.loads(kdc("report", *bundles, "--quiet", "--json").out)["columns"]
    assert kdc("check", bundles[0], "--quiet").out == "PASS on profile mini-pc: ship s; s holds every line\n"


def test_which_lines_a_failed_bundle_fails(make_bundle: Make) -> None:
    """What ships fails its own; what no other makes up for; what all fail, where nothing ships; any, where each fails
    another."""
    broken = {"q": {"precision": "fp16", "executed": "fp16", "error": "it does not load"}}
    slow = {"p50": 9.0, "repeat": 10}
    small = {"precision": "fp16", "executed": "fp16", "p50": 1.0, "rss": 10.0}
    for variants, budget, expected in (
        ({"s": {"wrong": 80}}, {"min_accuracy": 0.9}, ("min_accuracy",)),
        ({"s": {}, **broken}, {}, ("runs",)),
        ({"s": slow, "q": small}, {"size_mb": 1e-6}, ("size_mb",)),
        ({"s": slow, "q": small}, {"size_mb": 0.01, "p50_ms": 3}, ("p50_ms", "size_mb")),
        ({"s": {}}, {}, ()),
    ):
        assert failed_lines(build_report(make_bundle(variants, budget))) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--history", "h.jsonl"], "--history is for one bundle"),
        (["--baseline", "b"], "--baseline is for one bundle"),
        (["--allow-unmeasured"], "--allow-unmeasured is for one bundle"),
        (["--format", "junit"], "--format 'junit' is not one of md, json"),
    ],
)
def test_what_is_for_one_bundle_is_refused(
    bundles: tuple[Path, Path], kdc: Kdc, options: list[str], message: str
) -> None:
    done = kdc("report", *bundles, *options)
    assert (done.code, message in done.err) == (2, True)


def test_the_same_bundle_twice_is_refused(bundles: tuple[Path, Path]) -> None:
    with pytest.raises(KdcError, match="is named twice"):
        compressor.compare([bundles[0], bundles[1], bundles[0]])
    with pytest.raises(KdcError, match="two are needed to compare"):
        compressor.compare([bundles[0]])


def test_check_and_report_against_a_bundle_its_report_and_its_release(
    bundles: tuple[Path, Path], kdc: Kdc, tmp_path: Path
) -> None:
    old, new = bundles
    before = content(new)
    assert kdc("check", new).code == 0
    release = tmp_path / "release.json"
    assert kdc("report", old, "--format", "release", "--out", release).code == 0
    assert parse(Release, json.loads(release.read_text()), "release").n == 200
    for baseline in (old, old / "report.json", release):
        done = kdc("check", new, "--baseline", baseline)
        assert (done.code, "s, which ships, fails max_accuracy_loss" in done.out) == (1, True)
    shown = kdc("report", new, "--baseline", release, "--format", "md")
    assert (shown.code, "**Worse:** " in shown.out, "Against the baseline" in shown.out) == (0, True, True)
    assert kdc("check", old, "--baseline", new).code == 0
    assert content(new) == before
    refused = kdc("check", new, "--baseline", new)
    assert (refused.code, "is the bundle itself" in refused.err) == (2, True)
    (old / "model.txt").write_text("added")
    refused = kdc("check", new, "--baseline", old)
    assert (refused.code, "model.txt is not listed" in refused.err) == (2, True)


def test_a_history_grows_by_a_line_and_shows_the_trend(bundles: tuple[Path, Path], kdc: Kdc, tmp_path: Path) -> None:
    file = tmp_path / "kdc-history.jsonl"
    first = kdc("report", bundles[0], "--history", file)
    assert first.code == 0
    assert "### History on `mini-pc`: 1 bundle\n" in first.out
    assert kdc("report", bundles[1], "--history", file, "--format", "json").code == 0
    assert len(file.read_text().splitlines()) == 2
    before = file.read_bytes()
    again = kdc("report", bundles[1], "--history", file)
    assert file.read_bytes() == before
    assert "stood there already" in again.out
    assert "| accuracy % | █▁ | 85.0 | 97.5 | 85.0 |" in again.out
    assert "| p50 ms | █▁ | 1.50 | 2.00 | 1.50 |" in again.out
    assert [entry.verdict for entry in read_history(file)] == ["pass", "pass"]
    assert read_history(file)[0] == entry_of(bundles[0], build_report(bundles[0]))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_another_baseline_is_another_entry(bundles: tuple[Path, Path], kdc: Kdc, tmp_path: Path) -> None:
    old, new = bundles
    file = tmp_path / "history.jsonl"
    for more in ([], ["--baseline", old], [], ["--baseline", old]):
        assert kdc("report", new, "--history", file, *more).code == 0
    assert [(entry.verdict, entry.failed) for entry in read_history(file)] == [
        ("pass", ()),
        ("fail", ("max_accuracy_loss",)),
    ]


def test_now_is_that_of_the_last_bundle(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    entry = entry_of(bundles[0], build_report(bundles[0]))
    remember(tmp_path / "h.jsonl", entry)
    trend = remember(tmp_path / "h.jsonl", entry.model_copy(update={"id": "2", "winner": None, "verdict": "fail"}))
    assert "| p50 ms | ▁· | 2.00 | 2.00 | – |" in trend_table(trend)


@pytest.mark.parametrize("option", ["--out", "--history"])
def test_nothing_is_written_into_a_sealed_baseline(bundles: tuple[Path, Path], kdc: Kdc, option: str) -> None:
    old, new = bundles
    before = content(old)
    for baseline in (old, old / "report.json"):
        done = kdc("report", new, "--baseline", baseline, option, old / "added.md")
        assert (done.code, f"lies in the bundle {old}, which is sealed" in " ".join(done.err.split())) == (2, True)
    assert content(old) == before


def test_out_and_history_are_two_files(bundles: tuple[Path, Path], kdc: Kdc, tmp_path: Path) -> None:
    file = tmp_path / "both.md"
    done = kdc("report", bundles[0], "--out", file, "--history", tmp_path / "old" / ".." / "both.md")
    assert (done.code, "--out and --history are both" in done.err, file.exists()) == (2, True, False)


def test_a_file_that_is_no_history_is_left_alone(bundles: tuple[Path, Path], kdc: Kdc, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes\n")
    done = kdc("report", bundles[0], "--history", file)
    assert (done.code, "notes.txt line 1 is damaged: not JSON" in done.err) == (2, True)
    assert file.read_text() == "my notes\n"
    done = kdc("report", bundles[0], "--history", bundles[0] / "history.jsonl")
    assert (done.code, "lies in the bundle" in done.err) == (2, True)
    assert kdc("report", bundles[0], "--history", tmp_path).code == 2


def _remember(file: Path, entry: HistoryEntry) -> None:
    remember(file, entry)


def test_commands_that_add_at_the_same_time_lose_nothing(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    entry, file = entry_of(bundles[0], build_report(bundles[0])), tmp_path / "history.jsonl"
    file.write_text(entry.model_dump_json())  # as an editor leaves it, without a line break at the end
    entries = [entry.model_copy(update={"id": str(number)}) for number in range(6)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_remember, args=(file, one)) for one in entries]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert {one.id for one in read_history(file)} == {entry.id, *(str(number) for number in range(6))}


def test_the_trend_is_that_of_one_profile_and_no_name_breaks_out(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    entry = entry_of(bundles[0], build_report(bundles[0]))
    changes: list[dict[str, Any]] = [
        {"id": "1", "profile": "other"},
        {"id": "2", "student": "a|b`<script>", "winner": None, "verdict": "fail"},
        {"id": "3"},
    ]
    for change in changes:
        trend = remember(tmp_path / "h.jsonl", entry.model_copy(update=change))
    assert [one.id for one in trend.entries] == ["2", "3"]
    shown = trend_table(trend)
    assert "`a\\|b'<script>` | `none` | – | – | – | – |" in shown
    assert "| size MB | ·▁ |" in shown


def test_bars() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, None, 5.0]) == "▁·▁"
    assert sparkline([0.0, 10.0, None]) == "▁█·"
    assert sparkline([]) == ""
