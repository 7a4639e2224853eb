"""ONNX Runtime GenAI: its own model builder reads a folder of transformers, and packs the weights."""

import importlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, first_line, needs
from compressor.export.language.base import LanguageBuilder, config_of, write_json
from compressor.export.quiet import quiet
from compressor.files.atomic import TEMPORARY
from compressor.runtimes import RUNTIMES

__all__ = ["BUILDER"]

NAME = "onnxruntime-genai"
PURPOSE = f"an export to {NAME}"
OTHER = "choose openvino-genai"
MODEL, CONFIG = "model.onnx", "genai_config.json"
BLOCK = 32
"""Weights that share a scale."""
ROUNDED = 4
"""As the model builder has it for CPUs: what packed weights are multiplied with is rounded to int8, block by block, in
the product. In float32 (1) a product takes longer than with weights in float32, in int8 thirty times as long."""
HEAD_MULTIPLE = 16
"""GroupQueryAttention with rotary embeddings takes only sizes of heads that it divides (onnxruntime 1.32)."""


def _convert(model_folder: Path, precision: str, out: Path) -> str:
    config = config_of(model_folder)
    tied = bool(config.get("tie_word_embeddings"))
    scratch_of = tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=out.parent)
    with quiet("onnxruntime-genai cannot build the model"), _modules(), scratch_of as scratch:
        if precision == "int8" and tied:
            # That every matrix is to be int8 has to be said of each by its name; only then do they share one matrix
            # with the embeddings (0.18).
            _build(model_folder, config, None, Path(scratch) / "float32")
            _build(model_folder, config, _tied_int8(_matrices(Path(scratch) / "float32")), out)
        else:
            _build(model_folder, config, _weights(precision, tied), out)
    _require_runnable(out)
    _complete(model_folder, config, out)
    version = needs("onnxruntime_genai", RUNTIMES[NAME].install, PURPOSE).__version__
    return f"onnxruntime-genai {version}, models.builder{_told_of(precision, tied)}"


def _told_of(precision: str, tied: bool) -> str:
    if precision == "fp32":
        return ""
    others = {"int4": ", of the last layer int8", "int8": ""}[precision]
    embeddings = "embeddings are the last layer's" if tied else "embeddings float32"
    return (
        f", {precision} weights in blocks of {BLOCK}, symmetric{others}, {embeddings}, activations int8 in the products"
    )


def _weights(precision: str, tied: bool) -> dict[str, Any] | None:
    """How weights are packed, in the words of the model builder. In int4 what gives the answers takes 8 bits, and tied
    embeddings with it: one matrix, which loses the most."""
    if precision == "fp32":
        return None
    last = [{"match": {"preset": "last_matmul"}, "type": "int8"}] if precision == "int4" else []
    return {
        "type": precision,
        "block_size": BLOCK,
        "symmetric": True,
        "method": "rtn",  # the other ones give tied embeddings in int8 names that nothing has (0.18)
        "accuracy_level": ROUNDED,
        "op_types": ["MatMul", "Gather"] if tied else ["MatMul"],
        "overrides": last,
    }


def _tied_int8(matrices: list[str]) -> dict[str, Any]:
    overrides = [{"match": {"name": name}, "type": "int8"} for name in matrices]
    return {**(_weights("int4", True) or {}), "overrides": overrides}


def _build(model_folder: Path, config: dict[str, Any], weights: dict[str, Any] | None, out: Path) -> None:
    builder = importlib.import_module("builder")
    options: dict[str, Any] = {}
    if weights is not None:
        options = {"builder_config_version": 2, "target_options": {"quant_config": {"weights": weights}}}
    with tempfile.TemporaryDirectory() as cache:
        given = None, str(model_folder), str(out), "fp32" if weights is None else None, "cpu", cache
        read = builder.parse_extra_options(*given, ["hf_token=false", "hf_remote=false"], **options)
        try:
            builder.create_model(*given, **read)
        except NotImplementedError as error:
            kind = (config.get("architectures") or [config.get("model_type")])[0]
            raise KdcError(
                f"onnxruntime-genai builds no model of the architecture {kind} ({first_line(error)})", OTHER
            ) from None
        except (AttributeError, KeyError, ValueError) as error:
            raise KdcError(f"onnxruntime-genai cannot build the model: {first_line(error)}", OTHER) from None


def _matrices(folder: Path) -> list[str]:
    """The names of the matrix products with weights."""
    import onnx

    graph = onnx.load(folder / MODEL, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


@contextmanager
def _modules() -> Iterator[None]:
    """Inside, the modules of the model builder can be imported, which call themselves `builder`, `quantization` and
    the like: nothing of the user's that has such a name is imported in their place, and none of them stays."""
    needs("onnxruntime_genai", RUNTIMES[NAME].install, PURPOSE)
    spec = find_spec("onnxruntime_genai")
    assert spec is not None
    folder = Path((spec.submodule_search_locations or [""])[0]) / "models"
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}

    def taken() -> dict[str, Any]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}

    before, path = taken(), list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        taken()
        sys.modules.update(before)
        sys.path[:] = path


def _require_runnable(out: Path) -> None:
    """Raises KdcError for what is built, and then fails where it runs."""
    told = _told(out)["model"]
    size, window = told["decoder"]["head_size"], told["decoder"].get("sliding_window", {}).get("window_size")
    if size % HEAD_MULTIPLE:
        raise KdcError(
            f"onnxruntime-genai runs no attention with heads of {size}, only of multiples of {HEAD_MULTIPLE}", OTHER
        )
    if window is not None and window < told["context_length"]:
        raise KdcError(
            f"onnxruntime-genai reads no text at once that is longer than the model's attention, {window} tokens", OTHER
        )


def _complete(model_folder: Path, config: dict[str, Any], out: Path) -> None:
    """The tokenizer as the model was taught with it, but for what it puts around a text by itself: whoever asks puts
    the token that starts a document before it, and genai_config.json says which that is."""
    tokenizer = json.loads((model_folder / "tokenizer.json").read_text(encoding="utf-8"))
    write_json(out / "tokenizer.json", {**tokenizer, "post_processor": None, "padding": None, "truncation": None})
    told = _told(out)
    told["model"]["bos_token_id"] = config["bos_token_id"]
    write_json(out / CONFIG, told)


def _told(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return values


def _constants(folder: Path) -> Iterator[tuple[str, int]]:
    """Weights that are packed lie as uint8, and the nodes that read them say how many bits each has."""
    import onnx

    graph = onnx.load(folder / MODEL, load_external_data=False).graph
    bits = {}
    for node in graph.node:
        told = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "MatMulNBits":
            bits[node.input[1]] = told["bits"]
        elif node.op_type == "GatherBlockQuantized":
            bits[node.input[0]] = told.get("bits", 4)
    for tensor in graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        each = 4 if kind.name in ("int4", "uint4") else 8 * kind.itemsize
        name = f"int{bits[tensor.name]}" if tensor.name in bits else kind.name
        yield name, math.ceil(math.prod(tensor.dims) * each / 8)


def _limit(folder: Path) -> int:
    return int(_told(folder)["model"]["context_length"])


def _encoder(folder: Path) -> Callable[[str], list[int]]:
    genai = needs("onnxruntime_genai", RUNTIMES[NAME].install, PURPOSE)
    genai.disable_telemetry_events()
    with quiet("onnxruntime-genai cannot read the model's tokenizer"):
        tokenizer = genai.Tokenizer(genai.Model(str(folder)))
    return lambda text: [int(token) for token in tokenizer.encode(text)]


BUILDER = LanguageBuilder(_convert, _constants, _limit, _encoder)
