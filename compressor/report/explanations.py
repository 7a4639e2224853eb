"""What `--explain` left in a bundle, read: the times of layers, and what int8 costs them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from compressor.errors import KdcError
from compressor.report.integrity import MEASUREMENT, inside
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.explain import Explanation, LayerTimes
from compressor.schema.measurement import Contestant

__all__ = ["explanations", "layer_times"]


def explanations(bundle_dir: Path, bundle: Bundle) -> dict[str, Explanation]:
    """By variant. Raises KdcError for what contradicts itself."""
    listed = {entry.path for entry in bundle.support}
    told = {}
    for variant in bundle.variants:
        path = f"explain/{variant.name}.json"
        if path in listed:
            told[variant.name] = read_json(inside(bundle_dir, path, "bundle.json"), Explanation)
            _require(_wrong_explanation(told[variant.name], variant.name), bundle_dir / path)
    return told


def layer_times(bundle_dir: Path, contestants: Mapping[str, Contestant], device: str) -> dict[str, LayerTimes]:
    """By variant, of those that ran. `device`: see `read_results`. Raises KdcError for what contradicts itself."""
    told = {}
    for name, contestant in contestants.items():
        if contestant.layers is not None and contestant.error is None:
            path = f"{device}measurements/{contestant.layers}"
            told[name] = read_json(inside(bundle_dir, path, MEASUREMENT), LayerTimes)
            _require(_wrong_times(told[name]), bundle_dir / path)
    return told


def _require(problems: Iterator[str], path: Path) -> None:
    if (problem := next(problems, None)) is not None:
        raise KdcError(f"{path} {problem}", "make it again with --explain")


def _wrong_explanation(told: Explanation, variant: str) -> Iterator[str]:
    if told.variant != variant:
        yield f"is of {told.variant}"
    if told.batch < 1 or (told.errors and told.n < 1):
        yield f"compares {told.n} samples, {told.batch} a call"
    for error in told.errors:
        if len(error.signal) * told.batch != told.n or len(error.noise) != len(error.signal):
            yield f"does not have the sums of layer {error.name} for {told.n} samples, {told.batch} a call"
        if min((*error.signal, *error.noise), default=0.0) < 0:
            yield f"has a sum of squares of layer {error.name} below 0"
    names = [error.name for error in told.errors]
    if len(set(names)) != len(names):
        yield "names a layer twice"


def _wrong_times(told: LayerTimes) -> Iterator[str]:
    if not told.calls_ms or not told.nodes:
        yield "has no call, or no layer"
    if min(told.calls_ms, default=0.0) < 0:
        yield "has a call that took less than no time"
    for node in told.nodes:
        if len(node.us) != len(told.calls_ms):
            yield f"has {len(node.us)} times of {node.name}, and {len(told.calls_ms)} calls"
        if min(node.us, default=0.0) < 0:
            yield f"has a time of {node.name} below 0"
