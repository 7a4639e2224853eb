"""Activation ranges from training images: two passes over them, three ways of reading what was seen.

minmax      everything that was seen
percentile  all but one value in a hundred thousand, half of it cut at each end
magnitude   all but one value in a hundred thousand, the largest whatever their sign

The first pass finds the ends; in the second, onnxruntime's HistogramCollector counts what lies between them. It is fed
a batch at a time and told the ends at once, so that memory grows neither with the images, which it would otherwise
keep, nor with a batch that is much larger than the first, to which it would otherwise add as many bins as that takes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import onnx

from compressor.errors import KdcError, needs
from compressor.export.base import Source
from compressor.export.onnx.session import open_session
from compressor.runtimes import RUNTIMES
from compressor.tasks.base import Arrays

__all__ = ["FEWEST", "METHODS", "PERCENTILE", "activation_ranges", "batches"]

METHODS = ("minmax", "percentile", "magnitude")
FEWEST = 32
"""Calibration images below which a range would be an accident."""
PERCENTILE = 99.999
SMALLEST = 1e-30
"""Where float32 has hardly a digit left."""
BINS = 2048
"""Both as onnxruntime has them by default. Its PercentileCalibrater cuts at each end, its quantize_static by magnitude:
which is better differs from network to network (docs/experiments/calibrators.md)."""


def batches(source: Source, most: int | None = None) -> Iterator[Arrays]:
    """Calibration samples as the network takes them, `profile.batch` at a time; the last ones, where they do not fill a
    batch, are left out. Raises KdcError where there are fewer than FEWEST."""
    size = source.profile.batch
    count = min(len(source.calibration), len(source.calibration) if most is None else most)
    available, needed = len(source.calibration), max(FEWEST, size)
    if available < needed:
        raise KdcError(
            f"{available} training samples are too few to calibrate with: {needed} are needed",
            "give more training data, or a smaller batch",
        )
    for start in range(0, count - size + 1, size):
        yield source.calibration.fed(np.arange(start, start + size))


def activation_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Callable[[], Iterable[Arrays]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Method -> tensor -> (low, high), from two passes of the fp32 model over what `inputs` gives. Raises KdcError for
    NaN and infinity."""
    calibrate = needs("onnxruntime.quantization.calibrate", RUNTIMES["onnxruntime"].install, "calibration")
    session = open_session(model, tensors)
    ends = dict.fromkeys(tensors, (np.float32(np.inf), np.float32(-np.inf)))
    for batch in inputs():
        for name, values in session.run(batch).items():
            low, high = values.min(), values.max()
            if not np.isfinite([low, high]).all():
                raise KdcError(
                    "the network gives values that are not finite on training samples", "look at its weights"
                )
            ends[name] = min(ends[name][0], low), max(ends[name][1], high)
    ranges = {"minmax": {name: (float(low), float(high)) for name, (low, high) in ends.items()}}
    # Of what is always 0, or all but 0, a histogram has no bins, and rounding loses nothing.
    live = [name for name, (low, high) in ends.items() if max(-low, high) > SMALLEST]
    collectors = {
        method: calibrate.HistogramCollector("percentile", method == "magnitude", BINS, BINS, PERCENTILE, "same")
        for method in METHODS[1:]
    }
    with redirect_stdout(StringIO()):  # they print what they do
        for collector in collectors.values():
            collector.collect({name: np.array([0, *ends[name]], np.float32) for name in live})
            for counts, *_ in collector.get_histogram_dict().values():
                counts[:] = 0  # the ends are counted where they occur
        for batch in inputs():
            outputs = session.run(batch)
            seen = {name: outputs[name] for name in live}
            for collector in collectors.values():
                collector.collect(seen)
        for method, collector in collectors.items():
            kept = collector.compute_collection_result() if live else {}
            ranges[method] = ranges["minmax"] | {name: (float(row[0]), float(row[1])) for name, row in kept.items()}
    return ranges
