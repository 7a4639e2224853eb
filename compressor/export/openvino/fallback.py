"""OpenVINO's per-layer fallback: the layers whose int8 costs most go back to f32, as few as will do.

NNCF's accuracy control reverts one layer after the other and measures in its own process
(nncf.quantize_with_accuracy_control). Here its pieces serve the same end with fewer measurements, each of them by the
runner that the artefact is made for.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.export.base import Candidate, Judge, Source
from compressor.export.openvino.ir import core, quietly
from compressor.export.openvino.nncf_int8 import batch, batch_count, part_of_nncf, save_packed
from compressor.progress import Progress
from compressor.schema.quantization import Score
from compressor.tasks.base import Arrays

__all__ = ["Layers", "fallback", "fewest"]

ACCURACY_CONTROL = "nncf.quantization.algorithms.accuracy_control"
RANKED_ON = 32
"""Calibration images that a layer's cost is measured on."""
NAMED = 3
"""Layers that are named to people."""


class Layers:
    """The layers of a quantized model that can go back to float: each of `groups` has the quantizers that have to go
    together, and the operations that run in float without them."""

    def __init__(self, model: Any, quantized: Any) -> None:
        """`model` in float, and what nncf.quantize made of it, its weights not yet packed."""
        # None of this is NNCF's documented interface: another version may call it something else.
        with quietly("this version of NNCF cannot take layers back to float"):
            control = part_of_nncf(f"{ACCURACY_CONTROL}.algorithm")
            build_graph = part_of_nncf("nncf.common.factory").build_graph
            self._backend = part_of_nncf(f"{ACCURACY_CONTROL}.openvino_backend").OVAccuracyControlAlgoBackend()
            self._revert = part_of_nncf("nncf.common.quantization.quantizer_removal")
            self._mode = part_of_nncf("nncf.quantization.advanced_parameters").RestoreMode.ACTIVATIONS_AND_WEIGHTS
            self.model, self.quantized = model, quantized
            self._graph = build_graph(quantized)
            # Notes the biases from before their correction, which is for int8 only.
            control.QuantizationAccuracyRestorer._collect_original_biases_and_weights(
                build_graph(model), self._graph, model, self._backend
            )
            ranker = part_of_nncf(f"{ACCURACY_CONTROL}.ranker").Ranker(1, None, self._backend, None)
            self.groups: list[Any] = ranker.find_groups_of_quantizers_to_rank(self._graph)

    def without(self, groups: Sequence[Any]) -> Any:
        """A copy of the quantized model in which these groups run in float again, with their own biases."""
        with quietly("NNCF cannot take a layer back to float"):
            return self._revert.revert_operations_to_floating_point_precision(
                [operation for group in groups for operation in group.operations],
                [quantizer for group in groups for quantizer in group.quantizers],
                self.quantized,
                self._graph,
                self._mode,
                self._backend.get_op_with_weights_metatypes(),
                self._backend.is_node_with_weight,
                self._backend.get_weight_tensor_port_ids,
            )

    def ranked(self, batches: Sequence[Arrays], progress: Progress) -> list[Any]:
        """The groups, first the one without which the logits come nearest to those in float."""
        reference = logits(self.model, batches)
        doing = "OpenVINO int8, measuring what each layer costs"
        errors = [
            float(((logits(self.without([group]), batches) - reference) ** 2).mean())
            for group in progress.track(self.groups, len(self.groups), doing)
        ]
        return [self.groups[number] for number in np.argsort(errors, kind="stable")]


def fallback(
    source: Source, layers: Layers, description: str, folder: Path, judge: Judge, progress: Progress
) -> Candidate | None:
    """The model with the fewest layers in f32 that keeps the accuracy asked for; else the best one. At most half of the
    groups go back: with more it would be int8 in name only. None where there is nothing to choose from.

    `description`: how the quantized model was made. `judge` is asked about ten times.
    """
    if len(layers.groups) < 2:
        return None
    some = range(max(1, min(batch_count(source), RANKED_ON // source.profile.batch)))
    order = layers.ranked([batch(source, number) for number in some], progress)
    scores: dict[int, Score] = {}
    models: dict[int, Path] = {}

    def holds(count: int) -> bool:
        models[count] = save_packed(layers.without(order[:count]), folder / f"fallback-{count}")
        scores[count] = judge(models[count], "openvino", "int8")
        return judge.holds(scores[count])

    enough = fewest(len(order) // 2, holds)
    chosen = enough or max(scores, key=lambda count: (*judge.rank(scores[count])[:-1], -count))
    names = [
        operation.node_name.removesuffix("/WithoutBiases") for group in order[:chosen] for operation in group.operations
    ]
    total = len({operation.node_name for group in order for operation in group.operations})
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    reached = "which is enough" if enough else "which is still not enough"
    return Candidate(
        "fallback",
        f"{description}; {len(names)} of {total} operations back in f32 ({listed}), {reached}",
        models[chosen],
    )


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """The least count from 1 to `most` that holds, found by doubling and then halving; None where none of the counts
    tried does. 2 log2(most) questions at most."""
    low, high = 0, 1
    while not holds(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def logits(model: Any, batches: Sequence[Arrays]) -> NDArray[np.float32]:
    """[images, classes] of an openvino.Model, in f32 where it is not quantized: to rank layers, not to judge."""
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(batch)[0] for batch in batches])
