"""Why slow, why lost in every format: each number recomputed from raw samples, names as text, nothing by default."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.cells import cell_len

from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.report import (
    build_report,
    check,
    finish,
    refresh,
    report_schema,
    summary,
    to_html,
    to_json,
    to_markdown,
)
from compressor.report.render.explained import explained_line
from compressor.report.render.text import number, share
from compressor.schema.explain import Explained
from compressor.terminal.console import rendered_text
from tests.report.test_html import HOSTILE, VARIANTS, Page

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
CALLS, SAMPLES = 7, 4
RNG = np.random.default_rng(11)


def times(prefix: str = "") -> dict[str, Any]:
    """40 nodes, of which node 7 is much the slowest; the float one among the int8 ones is node 3."""
    precisions = ["int8"] * 40
    precisions[0] = precisions[3] = precisions[39] = "fp32"
    nodes: list[dict[str, Any]] = [
        {
            "name": {0: f"{prefix}reformat", 6: f"{prefix}relu_6_nchwc"}.get(index, f"{prefix}node_conv2d_{index}"),
            "op": "QLinearConv",
            "kernel": "",
            "precision": precision,
            "layers": [f"node_conv2d_{index}", "node_relu"] if index == 5 else [],
            "us": [
                float(value) for value in RNG.integers(20, 60, CALLS) + {7: 5000, 3: 100, 5: 100, 6: 100}.get(index, 0)
            ],
        }
        for index, precision in enumerate(precisions)
    ]
    calls = [sum(node["us"][call] for node in nodes) / 1000 + 0.5 for call in range(CALLS)]
    return {"profiler": "a profiler", "calls_ms": calls, "nodes": nodes}


def explanation(variant: str, prefix: str = "") -> dict[str, Any]:
    """40 layers one after the other; what layer 9 reads is good, and what it gives is not. The last gives zeros."""
    names = [f"{prefix}node_conv2d_{index}" for index in range(40)]
    graph: list[dict[str, Any]] = [
        {"name": name, "op": "Conv", "output": f"{prefix}conv2d_{index}", "module": f"{prefix}blocks.{index}.conv"}
        for index, name in enumerate(names)
    ]
    relu = {"name": f"{prefix}node_relu_6", "op": "Relu", "output": f"{prefix}relu_6", "reads": [graph[6]["output"]]}
    graph.append({**relu, "module": f"{prefix}blocks.6.act"})
    errors = [
        {
            "name": name,
            "op": "Conv",
            "reads": names[index - 1 : index] if index else [],
            "signal": [0.0] * SAMPLES if index == 39 else [float(value) for value in RNG.uniform(90, 110, SAMPLES)],
            "noise": [float(value) for value in RNG.uniform(0.9, 1.1, SAMPLES) * (40 if index >= 9 else 0.01)],
        }
        for index, name in enumerate(names)
    ]
    return {"variant": variant, "graph": graph, "against": "the student in fp32", "split": "validation",
            "n": SAMPLES, "batch": 1, "errors": errors, "missing": None}  # fmt: skip


def explain(
    bundle: Path, edit_json: Edit, prefix: str = "", reason: str = "this runtime has no per-layer profiler"
) -> Path:
    """Give the bundle what --explain leaves: of ort-int8 both, of openvino-f32 why there is nothing."""
    told = {
        "explain/ort-int8.json": explanation("ort-int8", prefix),
        "measurements/ort-int8.layers.json": times(prefix),
    }
    for path, values in told.items():
        (bundle / path).parent.mkdir(exist_ok=True)
        (bundle / path).write_text(json.dumps(values))
    entry = bundle / "explain/ort-int8.json"
    listed = {"path": "explain/ort-int8.json", "sha256": file_sha256(entry), "bytes": entry.stat().st_size}
    edit_json(bundle / "bundle.json", lambda values: values["support"].append(listed))

    def name(values: dict[str, Any]) -> None:
        for row in values["contestants"]:
            if row["variant"] == "ort-int8":
                row["layers"] = "ort-int8.layers.json"
                row["layers_sha256"] = file_sha256(bundle / "measurements/ort-int8.layers.json")
            if row["variant"] == "openvino-f32":
                row["no_layers"] = reason

    edit_json(bundle / "measurements/measurement.json", name)
    return bundle


@pytest.fixture
def told(make_bundle: Make, edit_json: Edit) -> Path:
    return explain(make_bundle(variants=VARIANTS, budget={"p50_ms": 9}), edit_json)


def explained(bundle: Path) -> Explained:
    report = build_report(bundle)
    assert report.explained is not None
    return report.explained


def test_nothing_is_told_that_was_not_asked_for(make_bundle: Make) -> None:
    report = build_report(make_bundle(variants=VARIANTS, budget={"p50_ms": 9}))
    assert report.explained is None
    assert explained_line(report) == ""
    assert "Why slow" not in to_markdown(report)
    assert "layers" not in rendered_text(summary(report, "bundle")).split()


def test_the_slowest_and_the_one_that_loses_most_are_named(told: Path) -> None:
    timed, lost = explained(told).timed, explained(told).lost
    ours = next(variant for variant in timed if variant.variant == "ort-int8")
    assert ours.of == 40
    assert len(ours.layers) == 30
    assert ours.layers[0].modules == ("blocks.7.conv",)
    assert [layer.share for layer in ours.layers] == sorted((layer.share for layer in ours.layers), reverse=True)
    everything = json.loads((told / "measurements/ort-int8.layers.json").read_text())["nodes"]
    whole = sum(float(np.median(node["us"])) for node in everything)
    assert ours.layers[0].share == pytest.approx(float(np.median(everything[7]["us"])) / whole)
    by_name = {layer.name: layer for layer in ours.layers}
    assert {name for name, layer in by_name.items() if layer.among_int8} == {"node_conv2d_3"}
    assert by_name["node_conv2d_5"].fused == ("node_conv2d_5", "node_relu")
    assert by_name["relu_6_nchwc"].fused == ("node_conv2d_6", "node_relu_6")
    assert by_name["relu_6_nchwc"].modules == ("blocks.6.conv", "blocks.6.act")
    assert by_name["node_conv2d_7"].fused == ()
    [loss] = lost
    assert (loss.of, loss.silent, len(loss.layers), loss.n) == (39, 1, 30, SAMPLES)
    assert loss.most is not None
    assert loss.most.module == "blocks.9.conv"
    assert [layer.sqnr_db or 0 for layer in loss.layers] == sorted(layer.sqnr_db or 0 for layer in loss.layers)
    line = explained_line(build_report(told))
    assert "slowest of ort-int8: blocks.7.conv (QLinearConv)" in line
    assert "most is lost by ort-int8 in blocks.9.conv (Conv)" in line
    text = rendered_text(summary(build_report(told), "bundle"))
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "blocks.7.conv" in text
    assert (
        next(row for row in timed if row.variant == "openvino-f32").missing == "this runtime has no per-layer profiler"
    )


class Anew:
    """The figures on a way of their own."""

    def __init__(self, bundle: Path) -> None:
        self.nodes = json.loads((bundle / "measurements/ort-int8.layers.json").read_text())["nodes"]
        self.errors = json.loads((bundle / "explain/ort-int8.json").read_text())["errors"]
        self.whole = sum(float(np.median(node["us"])) for node in self.nodes)
        self.db = {
            row["name"]: 10 * np.log10(sum(row["signal"]) / sum(row["noise"]))
            for row in self.errors
            if any(row["signal"])
        }

    def timed(self, name: str) -> dict[str, str]:
        node = next(node for node in self.nodes if node["name"] == name)
        low, middle, high = np.percentile(node["us"], [25, 50, 75])
        return {
            "share": share(float(np.median(node["us"])) / self.whole),
            "us": f"{number(middle)} [{number(low)}–{number(high)}]",
        }

    def lost(self, name: str) -> dict[str, str]:
        row = next(row for row in self.errors if row["name"] == name)
        before = [self.db[name] for name in row["reads"]]
        own = self.db[name]
        low, middle, high = np.percentile(10 * np.log10(np.array(row["signal"]) / np.array(row["noise"])), [25, 50, 75])
        values = {"sqnr": own, "lost": min([6.02 * 8 + 1.76, *before]) - own}
        said = {of: f"{value:.1f}".replace("-", "−") for of, value in values.items()}
        said["before"] = f"{before[0]:.1f}" if before else "no noise"
        return {**said, "calls": f"{number(middle)} [{number(low)}–{number(high)}]"}


def test_every_number_on_the_page_is_recomputed(told: Path) -> None:
    page, anew, report = Page(to_html(told, build_report(told))), Anew(told), build_report(told)
    assert report.explained is not None
    looked_up = 0
    for of, text in page.figures:
        what, *at = of.split("/")
        if what == "timed" and at[2] in ("share", "us"):
            variant = report.explained.timed[int(at[0])]
            assert text == anew.timed(variant.layers[int(at[1])].name)[at[2]], of
            looked_up += 1
        if what == "lost-layers" and at[2] in ("sqnr", "before", "lost", "calls"):
            assert text == anew.lost(report.explained.lost[0].layers[int(at[1])].name)[at[2]], of
            looked_up += 1
    assert looked_up == 30 * 2 + 30 * 4
    assert "Why slow, why lost" in page.words
    assert "openvino-f32: this runtime has no per-layer profiler." in page.words
    assert "n = 7 calls in a run of its own" in page.words
    assert "A profiler slows down what it watches: read the shares, not the times" in page.words


def test_every_number_in_markdown_is_recomputed(told: Path) -> None:
    text, anew = to_markdown(build_report(told)), Anew(told)
    assert text.index("<details><summary>Why slow, why lost") > text.index("<details>"), "folded"
    rows = [row.strip("|").split(" | ") for row in text.splitlines() if re.match(r"\| `(node_conv2d_|relu_6_)", row)]
    timed = [row for row in rows if len(row) == 6]
    lost = [row for row in rows if len(row) == 7]
    assert (len(timed) + text.count("| `reformat` "), len(lost)) == (10, 10)
    assert "(the 10 slowest of 40 layers)" in text
    assert "(the 10 lowest of 39 layers)" in text
    for row in timed:
        figures = anew.timed(row[0].strip(" `"))
        assert [cell.strip() for cell in row[4:]] == [figures["share"], figures["us"]]
    for row in lost:
        figures = anew.lost(row[0].strip(" `"))
        assert [cell.strip() for cell in row[3:]] == [figures[of] for of in ("sqnr", "before", "lost", "calls")]


def test_report_json_holds_it_by_its_schema(told: Path) -> None:
    report = finish(told)
    values = json.loads(to_json(report))
    jsonschema.validate(values, json.loads(report_schema()))
    assert values["explained"]["timed"][0]["variant"] in VARIANTS
    check(told)
    assert refresh(told).explained == report.explained


def test_what_was_changed_is_refused(told: Path) -> None:
    finish(told)
    path = told / "measurements/ort-int8.layers.json"
    path.write_text(path.read_text().replace("a profiler", "another"))
    with pytest.raises(KdcError, match=r"ort-int8\.layers\.json was changed"):
        check(told)
    with pytest.raises(KdcError, match=r"ort-int8\.layers\.json was changed after it was measured"):
        refresh(told)
    path = told / "explain/ort-int8.json"
    path.write_text(path.read_text().replace("blocks", "block"))
    with pytest.raises(KdcError, match=r"explain/ort-int8\.json was changed"):
        check(told)


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("measurements/ort-int8.layers.json", lambda v: v["nodes"][2]["us"].pop(), "has 6 times of node_conv2d_2"),
        ("measurements/ort-int8.layers.json", lambda v: v["nodes"].clear(), "has no call, or no layer"),
        ("measurements/ort-int8.layers.json", lambda v: v["nodes"][1]["us"].__setitem__(0, -1), "below 0"),
        ("measurements/ort-int8.layers.json", lambda v: v["calls_ms"].__setitem__(0, -1), "less than no time"),
        ("explain/ort-int8.json", lambda v: v.update(n=9), "does not have the sums of layer node_conv2d_0"),
        ("explain/ort-int8.json", lambda v: v.update(variant="other"), "is of other"),
        ("explain/ort-int8.json", lambda v: v["errors"].append(v["errors"][0]), "names a layer twice"),
        ("explain/ort-int8.json", lambda v: v["errors"][0]["noise"].__setitem__(0, -1.0), "below 0"),
    ],
)
def test_what_contradicts_itself_is_refused(
    told: Path, edit_json: Edit, path: str, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    edit_json(told / path, change)
    with pytest.raises(KdcError, match=said) as error:
        build_report(told)
    assert path in error.value.message


def test_hostile_names_are_text(make_bundle: Make, edit_json: Edit) -> None:
    plain = explain(make_bundle(variants=VARIANTS, budget={"p50_ms": 9}), edit_json)
    tags = {tag for tag, _ in Page(to_html(plain, build_report(plain))).tags}
    bundle = explain(make_bundle(variants=VARIANTS, budget={"p50_ms": 9}), edit_json, HOSTILE, HOSTILE)
    report = build_report(bundle)
    text = to_html(bundle, report)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= tags
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)
    assert len(text) < 1_500_000
    markdown = to_markdown(report)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", markdown)
    assert len(markdown) < 65_000
    table = [row for row in markdown.splitlines() if "QLinearConv" in row]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in table} == {8}, "no name breaks out of its cell"
    shown = rendered_text(summary(report, "bundle"))
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert "\x1b[31m" not in shown


def test_a_variant_that_failed_has_no_times(make_bundle: Make, edit_json: Edit) -> None:
    bundle = explain(make_bundle(variants=VARIANTS, budget={"p50_ms": 9}), edit_json)

    def fail(values: dict[str, Any]) -> None:
        kept = ("variant", "requested_precision", "threads", "layers", "layers_sha256")
        for row in values["contestants"]:
            if row["variant"] == "ort-int8":
                error = {key: row[key] for key in kept} | {"error": "it broke off"}
                row.clear()
                row.update(error)
        values["blocks"] = [block for block in values["blocks"] if block["variant"] != "ort-int8"]

    edit_json(bundle / "measurements/measurement.json", fail)
    assert "ort-int8" not in [variant.variant for variant in explained(bundle).timed]


def test_a_dash_in_the_place_of_a_module_is_explained(told: Path, edit_json: Edit) -> None:
    """Beside the table that has one, and only there."""
    said = "Module –: the name leads back to no module"

    def told_in(bundle: Path) -> tuple[list[bool], int]:
        report = build_report(bundle)
        timed, lost = to_markdown(report).partition("**What int8 costs")[::2]
        return [said in timed, said in lost], " ".join(Page(to_html(bundle, report)).words.split()).count(said)

    def dashes(bundle: Path) -> tuple[list[bool], int]:
        """report.md shows ten layers of each, report.html all that the report has."""
        timed = [not layer.modules for layer in explained(bundle).timed[0].layers]
        lost = [layer.module is None for layer in explained(bundle).lost[0].layers]
        return [any(timed[:10]), any(lost[:10])], any(timed) + any(lost)

    def without(*numbers: int) -> Callable[[dict[str, Any]], object]:
        return lambda values: [values["graph"][number].update(module=None) for number in numbers]

    def sealed_in(change: Callable[[dict[str, Any]], object]) -> None:
        path = told / "explain/ort-int8.json"
        edit_json(path, change)
        entry = {"path": "explain/ort-int8.json", "sha256": file_sha256(path), "bytes": path.stat().st_size}
        edit_json(told / "bundle.json", lambda values: values["support"].__setitem__(-1, entry))

    assert told_in(told) == dashes(told), "times are drawn: the runtime's own layer may be among the slowest"
    assert told_in(told)[0][1] is False
    sealed_in(without(7))  # the slowest, which loses little
    assert told_in(told) == dashes(told)
    assert told_in(told)[0] == [True, False]
    sealed_in(without(*range(7, 39)))  # those that lose
    assert told_in(told) == dashes(told) == ([True, True], 2)
