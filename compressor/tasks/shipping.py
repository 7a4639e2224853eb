"""What differs by task in BUNDLE/best/, how the input is described and the example programs, and in a report, what a
sample looks like. It needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from compressor.runtimes import Example
from compressor.schema.bundle import RawFiles, Variant
from compressor.schema.preprocess import Preprocess

__all__ = ["SHIPPING", "Shipping"]


class Shipping:
    """As it is for a task that ships no example programs. `sample`: what one is called, in figures. `in_card`: what a
    sample is called in the bill of materials; `task_in_card`: what CycloneDX calls the task. `reads`, `argument`: what
    its example reads, and is given. `beside`: files of a run that ship beside the model, by the name that they have
    then. `packages`: of PyPI, that its samples are read with on a device, beside numpy and the runtime, with their
    licences. `makes`: what a device makes of a raw sample (`write_raw`), by the library `maker`; `in_words`: whether
    raw samples are texts, which a page can show."""

    sample = "sample"
    in_card = "sample"
    task_in_card = "classification"
    reads = ""
    argument = ""
    beside: ClassVar[Mapping[str, str]] = {}
    packages: ClassVar[Mapping[str, str]] = {}
    makes, maker = "", ""
    in_words = False
    prepared = "`preprocess.json` says what the model takes"

    def input_files(self, variant: Variant, batch: int, model: str, cpp: bool) -> dict[str, bytes]:
        """What says how a sample becomes the model's input: preprocess.json; with `cpp`, for C++ too. `model`: the name
        of the file that the runtime loads."""
        return {"preprocess.json": (variant.preprocess.model_dump_json(indent=2) + "\n").encode()}

    def programs(self, example: Example) -> dict[str, str]:
        """The example's scripts in targets/, by the names under which they ship."""
        return {}

    def write_raw(self, split: Any, folder: Path) -> RawFiles | None:
        """Write samples of a split to the bundle in `folder` as an application has them, where a device makes inputs of
        them."""
        return None

    def front_end(self, preprocess: Preprocess, opset: int) -> bytes:
        """What makes the network's input of what `preprocess.before` makes, as an ONNX model of one input and one
        output. Only asked where there is such a thing."""
        raise NotImplementedError

    def picture(self, stored: NDArray[Any], most: int) -> tuple[str, bytes] | None:
        """A sample as it lies in a bundle's inputs, as a file that a browser shows, with its media type: at most `most`
        pixels high and wide. None where there is nothing to look at."""
        return None


SHIPPING = Shipping()
