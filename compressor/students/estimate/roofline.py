"""The roofline: a layer takes as long as computing or moving takes, whichever is longer, and an overhead.

After Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009; with a rate
for each kind of layer, since no runtime reaches the machine's peak in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from compressor.schema.profile import Device
from compressor.students.estimate.layers import KINDS, PRODUCTS, Layer

__all__ = ["PASSES", "Constants", "Peaks", "Work", "latencies_ms", "missing_facts", "peaks_of", "start", "work_of"]

Floats = NDArray[np.float64]

PASSES = KINDS[len(PRODUCTS) :]
VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Usual:
    """What runtimes usually reach: of the peak, each kind of product; of the bandwidth, each kind of pass (activations
    mostly run within the convolution before them); and how many times the machine's overhead a product, a pass and a
    call take."""

    products: tuple[float, ...]
    passes: tuple[float, ...]
    overheads: tuple[float, float, float]


USUAL = {
    "float": Usual((1.0, 0.9, 0.4, 0.3, 0.3, 0.5), (0.5, 2.0, 0.6, 0.3), (4.0, 1.5, 30.0)),
    "int8": Usual((0.4, 0.35, 0.05, 0.1, 0.1, 0.1), (0.5, 0.4, 0.6, 0.3), (15.0, 3.0, 30.0)),
    "openvino-int8": Usual((1.0, 0.9, 0.15, 0.2, 0.2, 0.3), (0.5, 2.0, 0.6, 0.5), (6.0, 1.5, 30.0)),
}
"""Round numbers, from the figures of docs/experiments/estimates.md. For int8 those of onnxruntime, which leaves
activations in float, where a runtime has no row of its own."""
OVERHEAD_US_AT_PEAK = 90.0
"""Where a profile does not say its overhead a layer: this many µs / the core's peak in fp32 in GFLOP/s, since cores
that compute much at a time are quick in everything else, too."""


@dataclass(frozen=True)
class Peaks:
    """A machine: what it computes at most in a precision (GFLOP/s), and moves (GB/s); its overhead a layer (µs)."""

    gflops: float
    bandwidth_gbs: float
    layer_overhead_us: float


@dataclass(frozen=True)
class Constants:
    """Of the roofline of a machine, runtime and precision. `gmacs`: 10^9 multiply-accumulates a second, a rate for each
    kind of product; `pass_gbs`: GB/s for each kind of pass; then the bandwidth for weights and for the other values of
    products; overheads of a product, a pass and a call, µs."""

    gmacs: Floats
    pass_gbs: Floats
    weights_gbs: float
    values_gbs: float
    product_us: float
    pass_us: float
    call_us: float

    def vector(self) -> Floats:
        """All of them in a row."""
        return np.concatenate([np.atleast_1d(getattr(self, field.name)) for field in fields(self)])

    @staticmethod
    def of(vector: Floats) -> "Constants":
        products, passes = len(PRODUCTS), len(PASSES)
        return Constants(vector[:products], vector[products : products + passes], *vector[products + passes :])

    def named(self) -> dict[str, float]:
        """By name, with three digits."""
        names = [f"{kind}_gmacs" for kind in PRODUCTS] + [f"{kind}_gbs" for kind in PASSES]
        names += [field.name for field in fields(self)][2:]
        return {name: float(f"{value:.3g}") for name, value in zip(names, self.vector(), strict=True)}


@dataclass(frozen=True)
class Work:
    """The layers of several networks, one after the other; `owner`: the number of each layer's network, of `count`."""

    owner: NDArray[np.int64]
    kind: NDArray[np.int64]
    macs: Floats
    weights: Floats
    values: Floats
    count: int


def work_of(networks: Sequence[Sequence[Layer]]) -> Work:
    """The layers of `networks` as arrays."""
    layers = [layer for network in networks for layer in network]
    return Work(
        owner=np.repeat(np.arange(len(networks)), [len(network) for network in networks]),
        kind=np.array([KINDS.index(layer.kind) for layer in layers], np.int64),
        macs=np.array([layer.macs for layer in layers], np.float64),
        weights=np.array([layer.weights for layer in layers], np.float64),
        values=np.array([layer.values for layer in layers], np.float64),
        count=len(networks),
    )


def latencies_ms(work: Work, constants: Constants, arithmetic: str) -> Floats:
    """What a call of each network takes, by the roofline. `arithmetic`: fp32, fp16, bf16 or int8."""
    width, is_product = VALUE_BYTES[arithmetic], work.kind < len(PRODUCTS)
    # In int8 networks what only passes over values is mostly float.
    rates = np.concatenate([constants.gmacs, constants.pass_gbs / 4]) * 1e9
    computing = np.where(is_product, work.macs, work.values) / rates[work.kind]
    moving = (work.weights / constants.weights_gbs + work.values / constants.values_gbs) * width * 1e-9
    overhead = np.where(is_product, constants.product_us, constants.pass_us) * 1e-6
    seconds = np.where(is_product, np.maximum(computing, moving), computing) + overhead
    by_network = np.bincount(work.owner, seconds, minlength=work.count).astype(np.float64)
    return by_network * 1e3 + constants.call_us * 1e-3


def missing_facts(device: Device, arithmetic: str) -> tuple[str, ...]:
    """What a profile must say of its device before anything can be estimated, and does not."""
    peaks = device.core_gflops.value if device.core_gflops is not None else {}
    missing = [f"device.core_gflops.{name}" for name in dict.fromkeys(("fp32", arithmetic)) if name not in peaks]
    return (*missing, *(("device.bandwidth_gbs",) if device.bandwidth_gbs is None else ()))


def peaks_of(device: Device, threads: int, arithmetic: str) -> Peaks:
    """The machine's peaks with so many threads, from facts that are not missing."""
    assert device.core_gflops is not None and device.bandwidth_gbs is not None, "missing_facts says so"  # noqa: PT018
    peaks, overhead = device.core_gflops.value, device.layer_overhead_us
    return Peaks(
        gflops=peaks[arithmetic] * min(threads, device.cores.value),  # type: ignore[index]
        bandwidth_gbs=device.bandwidth_gbs.value,
        layer_overhead_us=overhead.value if overhead is not None else OVERHEAD_US_AT_PEAK / peaks["fp32"],
    )


def start(peaks: Peaks, arithmetic: str, runtime: str = "") -> Constants:
    """The constants before any calibration: the machine's peaks, and the usual shares of them."""
    bandwidth, kind = peaks.bandwidth_gbs, "int8" if arithmetic == "int8" else "float"
    usual = USUAL.get(f"{runtime}-{kind}", USUAL[kind])
    return Constants(
        np.array(usual.products) * peaks.gflops / 2,
        np.array(usual.passes) * bandwidth,
        bandwidth,
        bandwidth,
        *(times * peaks.layer_overhead_us for times in usual.overheads),
    )
