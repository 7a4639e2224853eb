"""What a builder is given, and what it gives back. One builder a runtime, which names it in its row of `runtimes`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.progress import Progress
from compressor.schema.preprocess import Preprocess
from compressor.schema.profile import Profile
from compressor.schema.quantization import Quantization, RungName, Scheme, Score
from compressor.schema.student import Weights
from compressor.schema.tensors import Normalization
from compressor.tasks.base import Arrays, Stored, example_inputs

__all__ = [
    "Artefact",
    "Builder",
    "Candidate",
    "Compared",
    "Judge",
    "QatModel",
    "Quantizer",
    "Rank",
    "Retrain",
    "Source",
    "TopRung",
    "TwinLayer",
    "Twins",
]


@dataclass(frozen=True)
class Source:
    """One model to be exported.

    `network`: the tensors that `preprocess.inputs` names -> logits [batch, classes]; on the CPU and in evaluation mode.
    `onnx_file`: the same network as fp32 ONNX (its inputs by these names, output "logits", batch `profile.batch`, opset
    `profile.opset`). `calibration`: training samples, the only ones that ranges and corrections may be computed from.
    `modules`: the network's module that each node of the ONNX comes from, by the node's name, where that is known.
    """

    network: nn.Module
    onnx_file: Path
    preprocess: Preprocess
    calibration: Stored
    profile: Profile
    modules: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_tokens(self) -> bool:
        """Whether its inputs are sequences, some of whose positions count."""
        return self.preprocess.mask is not None

    def example(self) -> tuple[Tensor, ...]:
        """Zeros, a batch of them, as the network takes them."""
        return example_inputs(self.preprocess.inputs, self.profile.batch)


@dataclass(frozen=True)
class Artefact:
    """`model`: the file that the runner loads; all files in its folder ship with it. `made`: how, in one line."""

    model: Path
    made: str


@dataclass(frozen=True)
class Candidate:
    """One low-precision artefact on the ladder. `description`: one line for people. `stand_in`: an ONNX model that
    computes the same in onnxruntime, for artefacts whose runtime cannot run on this machine; None where it is judged
    itself."""

    rung: RungName
    description: str
    model: Path
    stand_in: Path | None = None


Rank = tuple[bool, bool, int, float, float]


class Judge(Protocol):
    """Scores an artefact on validation, through its runner."""

    def __call__(self, model: Path, runtime: str, precision: str, network: nn.Module | None = None) -> Score:
        """`network`: in torch, where its logits should be those of another than the student in fp32."""
        ...

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> NDArray[np.float32]:
        """Logits [min(most, n), classes] for the first validation images."""
        ...

    def holds(self, score: Score) -> bool:
        """Whether an int8 artefact gives torch's answers (parity, with room to spare for other samples than these) and
        keeps as much accuracy as the profile demands, in all and in every class, so that no higher rung is needed."""
        ...

    def rank(self, score: Score) -> Rank:
        """The larger, the better: parity first, then whether it keeps its accuracy, right answers, balanced accuracy,
        both up to those of fp32, and last, since validation images may be few, how close its logits are to torch's."""
        ...


@dataclass(frozen=True)
class QatModel:
    """A quantization-aware student. `network`: folded, fake-quantized, in evaluation mode; `float_network`: the same
    weights without the fake quantization. `weights`: whose they are. `onnx_file`: true Q/DQ ONNX with the trained
    ranges, int8 weights; `modules`: as of Source."""

    network: nn.Module
    float_network: nn.Module
    onnx_file: Path
    record: Quantization
    weights: Weights | None = None
    modules: Mapping[str, str] = field(default_factory=dict)


Retrain = Callable[[Scheme], QatModel | None]
"""Train the student on under fake quantization; None where that was not permitted."""


@dataclass(frozen=True)
class TopRung:
    """Where a quantization-aware student comes from. `student`: the student itself, where it was trained so; `retrain`:
    trains it so. By default there is none."""

    student: QatModel | None = None
    retrain: Retrain = lambda scheme: None


@dataclass(frozen=True)
class Quantizer:
    """How a runtime gets to int8.

    `scheme`: how its kernels round on the profile's device. `candidates`: the rungs from post-training quantization to
    per-layer fallback, made one after the other, each in a subfolder of its own of the folder given, the cheapest
    first; None after the last of each rung, and in the fallback after each set of layers, where whoever iterates may
    stop. `from_qat`: the top rung, from a retrained student; None where the runtime cannot take one. `skeleton`: the
    graph of the first rung, made quickly, of a network of drawn weights that only its speed is asked of.
    """

    scheme: Callable[[Profile], Scheme]
    candidates: Callable[[Source, Path, Judge, Progress], Iterator[Candidate | None]]
    from_qat: Callable[[Source, QatModel, Path], Candidate] | None = None
    skeleton: Callable[[Source, Path], Path] | None = None


Compared = Callable[[Arrays], Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]]
"""A batch -> of some layers the name, and what each gives in float and in low precision."""


@dataclass(frozen=True)
class TwinLayer:
    """A layer that a network has in float and in low precision. `reads`: the names of such layers before it."""

    name: str
    op: str
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Twins:
    """A network in float and the same in low precision. `layers`: those that both have, in their order, the inputs
    first; `compared`: runs both, for the layers named. What a layer gives is what the next one reads: behind its
    rounding, where it is rounded."""

    layers: tuple[TwinLayer, ...]
    compared: Callable[[Sequence[str]], Compared]


@dataclass(frozen=True)
class Builder:
    """How a runtime's artefacts are made, and what is in them.

    `convert`: for its float precisions (source, precision, new folder). `constants`: (type, bytes) of each constant in
    a model's file, types as numpy names them. `quantizer`: for int8, where it has one. `bake`: puts the normalization
    into a model (model, preprocessing, new model), so that it takes images as they are, and `prepend` a model that
    makes its input (model, that as ONNX, new model); None where it cannot.
    `dynamic_batch`: the precisions whose batch may vary from call to call.
    `twins`: an ONNX file in float, and what was made of it in low precision -> layer by layer; None where its models'
    layers cannot be read.
    """

    convert: Callable[[Source, str, Path], Artefact]
    constants: Callable[[Path], Iterable[tuple[str, int]]]
    quantizer: Quantizer | None = None
    bake: Callable[[Path, Normalization, Path], None] | None = None
    prepend: Callable[[Path, bytes, Path], None] | None = None
    dynamic_batch: tuple[str, ...] = ()
    twins: Callable[[Path, Path], Twins] | None = None
