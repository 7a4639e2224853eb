"""`kdc students --estimate`: layers, the roofline by hand, calibration on figures whose constants are known, and that
an estimate says what it is and judges nothing."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import hardswish

import compressor
from compressor.errors import KdcError
from compressor.export.bundle.macs import count_macs
from compressor.profiles import load_profile
from compressor.schema.students import KeptFigures
from compressor.schema.tensors import TensorSpec
from compressor.schema.unmeasured import EstimatedStudent
from compressor.students.estimate import api as api_module
from compressor.students.estimate import basis as basis_module
from compressor.students.estimate.api import Layers
from compressor.students.estimate.basis import Looked, arithmetic_of, kept_of, measured_of
from compressor.students.estimate.calibration import Measured, accuracy_of, calibrated, left_out, split_families
from compressor.students.estimate.layers import KINDS, PRODUCTS, Layer, layers_of
from compressor.students.estimate.roofline import (
    PASSES,
    Constants,
    Peaks,
    latencies_ms,
    missing_facts,
    peaks_of,
    start,
    work_of,
)
from compressor.students.kept import Kept, all_kept, shelf
from compressor.tasks.image_classification.candidates import create
from tests.kit import MACHINE, Ended
from tests.students.test_students_table import figures

Kdc = Callable[..., Ended]


@pytest.fixture(scope="module", autouse=True)
def _each_candidate_is_looked_at_once() -> Iterator[None]:
    """And not once in each command: building one and running it on no device takes a fifth of a second."""
    look, looked = Layers._look, dict[tuple[object, ...], Looked]()

    def once(layers: Layers, *asked: object) -> Looked:
        key = (layers._candidates, layers._batch, vars(api_module)["layers_of"], *asked)
        if key not in looked:
            looked[key] = look(layers, *asked)  # type: ignore[arg-type]
        return looked[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Layers, "_look", once)
        yield


SMALL = {
    "lcnet_035": "LCNet", "lcnet_050": "LCNet", "mobilenetv3_small_050": "MobileNetV3",
    "mobilenetv2_035": "MobileNetV2", "mobilenetv4_conv_small_035": "MobileNetV4", "ghostnet_050": "GhostNet",
    "tinynet_e": "TinyNet",
    "mnasnet_small": "MNASNet",
}  # fmt: skip
PI = "raspberry-pi-5"


class Net(nn.Module):
    """A layer of each kind that has a rule of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.squeeze = nn.Conv2d(16, 16, 1)
        self.table: Tensor
        self.register_buffer("table", torch.ones(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = nn.functional.relu6(self.depthwise(x) + x)
        x = hardswish(self.pointwise(x))
        x = torch.cat([self.grouped(x), x], 1)[:, :16]
        scale = torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.head((x * scale).flatten(2).mean(2))
        return logits * self.table.cumsum(0).sum()


def test_layers_by_hand() -> None:
    inputs = (TensorSpec("pixels", "float32", ("batch", 3, 4, 4)),)
    macs = count_macs(Net(), inputs)
    found = layers_of(Net(), inputs)
    assert found == (
        Layer("dense", 16 * 8 * 27, 8 * 27, 16 * (3 + 8)),  # its normalization and ReLU are folded
        Layer("depthwise", 16 * 8 * 9, 8 * 9 + 8, 16 * (8 + 8)),
        Layer("elementwise", 0, 0, 16 * 3 * 8),  # its ReLU6 is folded, too
        Layer("pointwise", 16 * 8 * 16, 8 * 16 + 16, 16 * (8 + 16)),
        Layer("activation", 0, 0, 16 * 2 * 16),
        Layer("grouped", 16 * 16 * 8 * 9, 16 * 8 * 9 + 16, 16 * (16 + 16)),
        Layer("copy", 0, 0, 16 * (32 + 32)),
        Layer("reduction", 0, 0, 16 * 16 + 16),
        Layer("vector", 256, 256 + 16, 16 + 16),
        Layer("activation", 0, 0, 2 * 16),
        Layer("elementwise", 0, 0, 16 * 2 * 16 + 16),
        Layer("reduction", 0, 0, 16 * 16 + 16),
        Layer("vector", 80, 80 + 5, 16 + 5),
        Layer("elementwise", 0, 1, 5 + 5),  # what the table comes to is a constant, which costs nothing
    )
    assert sum(layer.macs for layer in found) == macs


@pytest.mark.parametrize("name", ["mobileone_s0", "mobilenetv3_small_050", "mixnet_s"])
def test_the_layers_of_candidates_have_all_macs_of_the_merged_network(name: str) -> None:
    looked = Layers("image-classification", 1)(name, 64, 10)
    model = create(name, 10, 64)
    assert looked.macs == count_macs(model.network, model.preprocess.inputs)
    assert looked.parameters == sum(parameter.numel() for parameter in model.network.parameters())
    assert {layer.kind for layer in looked.layers} <= set(KINDS)
    # A call of four samples computes four times as much, with the same weights.
    of_four = Layers("image-classification", 4)(name, 64, 10)
    assert of_four.macs == looked.macs
    assert sum(layer.macs for layer in of_four.layers) == 4 * looked.macs
    assert sum(layer.weights for layer in of_four.layers) == sum(layer.weights for layer in looked.layers)


def test_a_network_that_cannot_run_without_values_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it depends on\nits values")

    monkeypatch.setattr(api_module, "layers_of", fail)
    with pytest.raises(KdcError, match="lcnet_035 cannot be looked at: it depends on"):
        Layers("image-classification", 1)("lcnet_035", 64, 10)


HAND = Constants(
    gmacs=np.array([10.0, 5.0, 1.0, 1.0, 1.0, 2.0]),
    pass_gbs=np.array([4.0, 1.0, 2.0, 8.0]),
    weights_gbs=2.0,
    values_gbs=4.0,
    product_us=10.0,
    pass_us=5.0,
    call_us=100.0,
)


@pytest.mark.parametrize(
    ("layer", "fp32_ms", "int8_ms"),
    [
        # 10^7 / 10 GMAC/s is 1 ms; the 4 * 10^5 bytes of weights at 2 GB/s and those of values at 4 are 0.3 ms.
        (Layer("dense", 10_000_000, 100_000, 100_000), 1.0 + 0.01, 1.0 + 0.01),
        # 10^5 MACs at 1 GMAC/s are 0.1 ms, its weights 0.2: moving is what takes long; in int8 they are a quarter.
        (Layer("vector", 100_000, 100_000, 0), 0.2 + 0.01, 0.1 + 0.01),
        # 10^6 values of 4 bytes at 4 GB/s, whatever the weights' precision.
        (Layer("elementwise", 0, 0, 1_000_000), 1.0 + 0.005, 1.0 + 0.005),
        (Layer("copy", 0, 0, 1_000_000), 0.5 + 0.005, 0.5 + 0.005),
    ],
)
def test_the_roofline_by_hand(layer: Layer, fp32_ms: float, int8_ms: float) -> None:
    work = work_of([[layer], [layer, layer], []])
    for arithmetic, expected in (("fp32", fp32_ms), ("int8", int8_ms)):
        assert latencies_ms(work, HAND, arithmetic) == pytest.approx([0.1 + expected, 0.1 + 2 * expected, 0.1])


def test_constants_before_calibration_are_shares_of_the_profiles_facts() -> None:
    device = load_profile(PI).device
    assert peaks_of(device, 4, "fp32") == Peaks(4 * 38.4, 17.0, 90 / 38.4)
    assert peaks_of(device, 2, "int8").gflops == pytest.approx(2 * 153.6)
    assert peaks_of(device, 64, "fp32").gflops == pytest.approx(4 * 38.4)  # no more cores than there are
    constants = start(peaks_of(device, 4, "fp32"), "fp32")
    named = constants.named()
    assert named["dense_gmacs"] == pytest.approx(153.6 / 2, rel=0.01)
    assert named["weights_gbs"] == 17.0
    assert list(named)[: len(PRODUCTS)] == [f"{kind}_gmacs" for kind in PRODUCTS]
    assert Constants.of(constants.vector()).named() == named


def drawn_networks(count: int) -> list[list[Layer]]:
    """Of drawn mixtures, no two alike."""
    random = np.random.default_rng(7)
    networks = []
    for _ in range(count):
        kinds = random.choice(KINDS, random.integers(20, 60))
        scale = float(random.uniform(0.2, 5))
        networks.append(
            [
                Layer(
                    str(kind),
                    int(scale * random.integers(100_000, 10_000_000)) if kind in PRODUCTS else 0,
                    int(random.integers(100, 100_000)) if kind in PRODUCTS else 0,
                    int(random.integers(1_000, 20_000 if kind in PRODUCTS else 3_000_000)),
                )
                for kind in kinds
            ]
        )
    return networks


def synthetic(constants: Constants, count: int = 40, families: int = 10) -> list[Measured]:
    networks = drawn_networks(count)
    times = latencies_ms(work_of(networks), constants, "fp32")
    return [Measured(f"family {row % families}", networks[row], float(times[row])) for row in range(count)]


BEGIN = Constants(np.array([60.0, 50.0, 20.0, 20.0, 20.0, 30.0]), np.full(4, 30.0), 30.0, 30.0, 5.0, 2.0, 50.0)
TRUE = Constants.of(BEGIN.vector() * np.array([2.0] * 6 + [0.7, 0.5, 1.4, 0.6] + [1.0, 1.0, 0.5, 0.5, 0.5]))


def test_calibration_finds_the_constants_of_a_machine_that_is_not_as_its_profile_says() -> None:
    rows = synthetic(TRUE)
    before = accuracy_of(latencies_ms(work_of([row.layers for row in rows]), BEGIN, "fp32"), times(rows), "")
    assert before.median_error > 0.2
    found = calibrated(rows, BEGIN, "fp32")
    after = accuracy_of(latencies_ms(work_of([row.layers for row in rows]), found, "fp32"), times(rows), "")
    assert after.median_error < 0.005
    assert after.spearman > 0.99
    # All of these networks compute far more than they move, so the rates are what the figures tell.
    assert found.gmacs[:3] == pytest.approx(TRUE.gmacs[:3], rel=0.05)
    assert found.pass_gbs == pytest.approx(TRUE.pass_gbs, rel=0.15)


def test_families_that_were_left_out_are_estimated_as_well() -> None:
    rows = synthetic(TRUE)
    (half,) = split_families(rows, 2, seed=1)[:1]
    assert len(half) == 5
    ((numbers, estimates),) = left_out(rows, BEGIN, "fp32", [half])
    assert {rows[number].family for number in numbers} == half
    accuracy = accuracy_of(estimates, times(rows)[numbers], "half")
    assert accuracy.median_error < 0.02
    assert accuracy.n == 20


def test_fewer_families_than_parts_make_fewer_parts() -> None:
    parts = split_families(synthetic(TRUE, 8, 4), 5, seed=0)
    assert sorted(name for part in parts for name in part) == [f"family {number}" for number in range(4)]
    assert len(parts) == 4


def test_one_odd_network_does_not_turn_the_others() -> None:
    rows = synthetic(TRUE)
    rows[0] = replace(rows[0], p50_ms=rows[0].p50_ms * 10)
    found = calibrated(rows, BEGIN, "fp32")
    estimates = latencies_ms(work_of([row.layers for row in rows[1:]]), found, "fp32")
    assert accuracy_of(estimates, times(rows[1:]), "").median_error < 0.03


def test_what_the_reference_shows_of_a_drifting_machine_is_divided_out() -> None:
    rows = synthetic(TRUE)
    slowed = [
        replace(row, p50_ms=row.p50_ms * 1.5, drift=1.5) if number % 2 else row for number, row in enumerate(rows)
    ]
    expected = calibrated(rows, BEGIN, "fp32").vector()
    assert calibrated(slowed, BEGIN, "fp32").vector() == pytest.approx(expected, rel=1e-6)


def times(rows: Sequence[Measured]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([row.p50_ms for row in rows])


def test_errors_by_hand() -> None:
    accuracy = accuracy_of(np.array([1.1, 1.0, 6.0]), np.array([1.0, 2.0, 4.0]), "three")
    assert (accuracy.median_error, accuracy.worst_error, accuracy.n) == (0.5, 0.5, 3)
    assert accuracy.spearman == 0.5  # the ranks 2 1 3 against 1 2 3


@pytest.mark.parametrize(
    ("runtime", "precision", "expected"),
    [
        ("onnxruntime", "fp32", "fp32"),
        ("openvino", "f16", "fp32"),
        ("openvino", "bf16", "bf16"),
        ("openvino", "int8", "int8"),
    ],
)
def test_in_what_a_variant_computes(runtime: str, precision: str, expected: str) -> None:
    assert arithmetic_of(runtime, precision) == expected


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(constants: Constants, names: Sequence[str] = tuple(SMALL)) -> dict[str, float]:
    """Figures of candidates at 64 pixels, as a Raspberry Pi 5 with these constants would give them, kept."""
    look = Layers("image-classification", 1)
    layers = [look(name, 64, 10).layers for name in names]
    p50 = dict(zip(names, latencies_ms(work_of(layers), constants, "fp32").tolist(), strict=True))
    kept = Kept(shelf(), MACHINE, load_profile(PI), {"onnxruntime": "1.32.0"})
    for name in names:
        row = figures(name, p50[name], input_size=64, family=SMALL[name], measured="2026-11-30")
        kept.add(row, ("reference", 1.0))
    return p50


def test_calibrated_on_what_is_kept_of_the_device(cache: Path, kdc: Kdc, tmp_path: Path) -> None:
    """A Pi half as fast as its facts say."""
    slow = start(Peaks(70.0, 9.0, 3.0), "fp32")
    p50 = keep(slow)
    asked = ("students", "--profile", PI, "--estimate", "--classes", 10, "--input-size", 64, "--set",
             "targets=[{runtime: onnxruntime, precisions: [fp32]}]", "--set", "budget.p50_ms=1000")  # fmt: skip
    chosen = [part for name in SMALL for part in ("--student", name)]
    ended = kdc(*asked, *chosen, "--json", "--csv", tmp_path / "estimates.csv")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    (basis,) = answer["bases"]
    assert basis["calibrated"] is True
    assert (basis["candidates"], basis["families"], basis["accuracy"]["n"]) == (8, 7, 8)
    assert basis["machine"].startswith("Cortex-A76")
    assert basis["accuracy"]["median_error"] < 0.05
    for row in answer["rows"]:
        assert row["estimated_p50_ms"] == pytest.approx(p50[row["student"][5:]], rel=0.1)
    assert [row["rank"] for row in answer["rows"]] == list(range(1, 9))
    estimates = [row["estimated_p50_ms"] for row in answer["rows"]]
    assert estimates == sorted(estimates)
    # Labelled as what it is, and nothing is judged, however wide the budget.
    assert answer["what"] == "estimates: nothing here was measured"
    assert {row["budget"] for row in answer["rows"]} == {"not measured"}
    assert not {"admitted", "over", "p50_ms"} & set(answer["rows"][0])
    lines = list(csv.DictReader(io.StringIO((tmp_path / "estimates.csv").read_text(encoding="utf-8"))))
    assert {(line["what"], line["budget"], line["calibrated"]) for line in lines} == {
        ("estimate", "not measured", "True")
    }
    assert float(lines[0]["median_error"]) == basis["accuracy"]["median_error"]
    text = " ".join(kdc(*asked, *chosen).out.split())
    for words in (
        "ESTIMATED p50 ms", f"ESTIMATES for {PI}, batch 1, 4 threads, 10 classes: nothing here was measured",
        "calibrated on 8 candidates of 7 families measured on Cortex-A76", "median error", "Spearman",
    ):  # fmt: skip
        assert words in text
    assert "holds" not in text


def test_without_figures_the_profiles_facts_and_what_is_known_of_such_estimates(cache: Path) -> None:
    result = compressor.estimate_students(profile=PI, student=["lcnet_035", "mobilenetv2_035"], input_size=(64, 96))
    assert result.ranking["onnxruntime-fp32"][0] == "timm:lcnet_035"
    assert not hasattr(result, "admitted")
    assert result.summary == f"2 candidates estimated for {PI}; nothing was measured"
    for basis in result.answer.bases:
        assert not basis.calibrated
        assert basis.accuracy == basis_module.ELSEWHERE[basis.runtime, basis.precision]
        assert basis.machine == basis_module.WHERE
    assert "On this device the error is not known." in result.text
    # Twice the pixels a side take four times as long, but for what does not depend on them.
    by_size = {row.input_size: row for row in result.answer.rows if row.student == "timm:lcnet_035"}
    assert by_size[64].estimated_p50_ms < by_size[96].estimated_p50_ms < 2.25 * by_size[64].estimated_p50_ms


def test_an_estimate_cannot_be_written_as_a_verdict() -> None:
    values = {
        "student": "timm:net", "family": "Nets", "input_size": 64, "runtime": "onnxruntime", "precision": "fp32",
        "rank": 1, "estimated_p50_ms": 1.0, "parameters": 1, "macs": 1,
    }  # fmt: skip
    assert EstimatedStudent.model_validate(values).budget == "not measured"
    for addition in ({"budget": "holds"}, {"admitted": True}):
        with pytest.raises(ValueError, match=next(iter(addition))):
            EstimatedStudent.model_validate(values | addition)


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ("x86-avx2", "the profile does not say device.core_gflops.fp32 and device.bandwidth_gbs"),
        ("android-snapdragon-8gen3", "the profile does not say device.core_gflops.fp32"),
        ("rtx-ada", "it runs on a GPU, and only what runs on a CPU is estimated"),
    ],
)
def test_refused_where_the_profile_has_no_facts(cache: Path, kdc: Kdc, profile: str, told: str) -> None:
    ended = kdc("students", "--profile", profile, "--estimate")
    assert ended.code == 2
    assert f"nothing can be estimated for profile {profile}: " in ended.err
    assert told in " ".join(ended.err.split())
    assert "kdc profiles new" in ended.err


def test_what_is_not_estimated_is_said(cache: Path) -> None:
    result = compressor.estimate_students(profile="jetson-orin-nano", student="lcnet_035", input_size=64)
    assert {row.variant for row in result.answer.rows} == {"onnxruntime-fp32"}
    assert result.answer.not_estimated == dict.fromkeys(
        ("tensorrt-fp32", "tensorrt-int8"), "it runs on a GPU, and only what runs on a CPU is estimated"
    )
    assert "not estimated: tensorrt-fp32: it runs on a GPU" in result.text


@pytest.mark.parametrize("option", [("--device", "ssh://pi@board"), ("--fresh",)])
def test_options_that_reach_a_device_are_refused(kdc: Kdc, option: tuple[str, ...]) -> None:
    ended = kdc("students", "--profile", PI, "--estimate", *option)
    assert ended.code == 2
    assert "--estimate reaches no device" in ended.err


def test_a_name_that_nobody_knows_is_refused(cache: Path) -> None:
    with pytest.raises(KdcError, match="did you mean lcnet_035"):
        compressor.estimate_students(profile=PI, student="timm:lcnet_35")


def test_missing_facts() -> None:
    device = load_profile(PI).device
    assert missing_facts(device, "int8") == ()
    assert missing_facts(device, "bf16") == ("device.core_gflops.bf16",)
    without = device.model_copy(update={"core_gflops": None, "bandwidth_gbs": None})
    assert missing_facts(without, "int8") == (
        "device.core_gflops.fp32", "device.core_gflops.int8", "device.bandwidth_gbs",
    )  # fmt: skip


def kept_row(**changes: object) -> KeptFigures:
    row = KeptFigures(figures=figures(), machine=MACHINE, threads=4, batch=1, reference="net", reference_ms=1.0)
    return row.model_copy(update=changes)


def test_figures_of_another_machine_or_setting_calibrate_nothing() -> None:
    pi = load_profile(PI)
    mine = kept_row()
    others = [
        kept_row(machine=MACHINE.model_copy(update={"cpu": "Cortex-A53"})),
        kept_row(threads=1),
        kept_row(batch=8),
        kept_row(figures=figures(precision="int8")),
        kept_row(figures=figures(runtime="openvino")),
        kept_row(figures=figures(p50=None, error="no")),
    ]
    assert kept_of(pi, "onnxruntime", "fp32", [*others, mine]) == (mine,)
    # Of two versions of the runtime, the one that was measured last.
    newer = kept_row(figures=figures(runtime_version="1.33.0", measured="2026-12-01"))
    assert kept_of(pi, "onnxruntime", "fp32", [mine, newer]) == (newer,)
    assert kept_of(pi, "onnxruntime", "fp32", others) == ()


def test_drift_is_against_the_usual_session() -> None:
    rows = [kept_row(reference_ms=value) for value in (1.0, 1.0, 2.0, 4.0)]
    rows += [kept_row(reference="other", reference_ms=8.0), kept_row(reference=None, reference_ms=None)]
    measured = measured_of(rows, lambda name, size, classes: Layers("image-classification", 1)("lcnet_035", 64, 10))
    # Of the sessions 1, 2 and 4 the middle one is usual.
    assert [row.drift for row in measured] == [0.5, 0.5, 1.0, 2.0, 1.0, 1.0]


def test_what_is_kept_is_found_with_its_machine_and_damage_is_not(cache: Path) -> None:
    keep(TRUE, ["lcnet_035"])
    (shelf() / "damaged.json").write_text("{}", encoding="utf-8")
    (row,) = all_kept(shelf())
    assert (row.machine, row.threads, row.batch, row.reference, row.reference_ms) == (MACHINE, 4, 1, "reference", 1.0)
    assert len(PASSES) + len(PRODUCTS) == len(KINDS)
