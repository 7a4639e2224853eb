"""ONNX -> OpenVINO IR, at the float precision that was asked for."""

import functools
import io
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, needs
from compressor.export.base import Artefact, Source
from compressor.runtimes import RUNTIMES

__all__ = ["convert", "converted", "core", "ir_constants", "quietly", "reason", "save", "write"]

# OpenVINO's names of element types -> the names that ONNX (and numpy) have for them.
IR_TYPES = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64", "boolean": "bool",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "i4": "int4",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "u4": "uint4", "u1": "uint1",
}  # fmt: skip

NOISY = ("nncf", "torch.utils.cpp_extension", "torch.export")
"""Loggers: the first two greet whoever imports NNCF, and the second one misses a GPU; the third complains when OpenVINO
2026.0 tries an ONNX file as one of torch's first."""

COUNTED = re.compile(r"[A-Z]\w*_\d+")
"""Names that OpenVINO gives, e.g. Reshape_15: also to the constants that it computes of such nodes."""


def convert(source: Source, precision: str, folder: Path) -> Artefact:
    """FOLDER/model.xml and model.bin.

    `precision` "f32" stores f32 weights. "f16" and "bf16" store f16 weights (OpenVINO's compressed format: half the
    size, widened when loaded; docs.openvino.ai, "Convert a Model / FP16 compression"); bf16 is then chosen when the
    model is compiled. Raises KdcError (exit 4) without openvino.
    """
    half = precision != "f32"
    model = save(converted(source.onnx_file), folder, half=half)
    return Artefact(model, f"openvino.convert_model, save_model(compress_to_fp16={half})")


@functools.cache
def core() -> Any:
    """The only `Core` of kdc's process, which stays to its end.

    Each brings a stack of its own for signals and puts back the one before it. Of several that end in another order,
    what is put back is gone, and the next signal, a Ctrl-C, is a segmentation fault (OpenVINO 2026.4,
    src/plugins/intel_cpu/src/plugin.cpp, CPUSpecialSetup). `openvino.compile_model` makes one a call. Raises KdcError
    (exit 4) without openvino.
    """
    return needs("openvino", RUNTIMES["openvino"].install, "an OpenVINO export").Core()


@contextmanager
def quietly(failure: str) -> Iterator[None]:
    """Keep the logs and progress bars of OpenVINO and NNCF away; what they raise becomes a KdcError that starts with
    `failure`."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    except KdcError:
        raise
    except Exception as error:  # they raise types of their own, and plain RuntimeErrors
        raise KdcError(f"{failure}: {reason(error)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def converted(onnx_file: Path) -> Any:
    """The openvino.Model of an ONNX file. By convert_model and not by Core.read_model: after the latter NNCF has
    skipped its bias correction without a word."""
    ov = needs("openvino", RUNTIMES["openvino"].install, "an OpenVINO export")
    with quietly("OpenVINO cannot convert the network"):
        return ov.convert_model(onnx_file)


def save(model: Any, folder: Path, *, half: bool, name: str = "model") -> Path:
    """Write FOLDER/NAME.xml and NAME.bin, float constants as f16 where `half`; returns the .xml. The same model gives
    the same bytes: nodes without a name of their own are called by a counter of the process, and are renamed here."""
    ov = needs("openvino", RUNTIMES["openvino"].install, "an OpenVINO export")
    for number, node in enumerate(model.get_ordered_ops()):
        if COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}.{number}")
    folder.mkdir(parents=True, exist_ok=True)
    write(ov, model, folder / f"{name}.xml", half=half)
    return folder / f"{name}.xml"


def write(ov: Any, model: Any, path: Path, *, half: bool) -> None:
    """`ov.save_model`, whose RuntimeErrors (a full disk among them) become a KdcError."""
    try:
        # Said outright: save_model stores f16 unless told otherwise.
        ov.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:
        hint = "free some space, or check the folder's permissions"
        raise KdcError(f"OpenVINO cannot write {path}: {reason(error)}", hint) from None


def reason(error: BaseException) -> str:
    """What OpenVINO's errors say: they begin with places in its sources, and the reason comes last."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    return lines[-1] if lines else type(error).__name__


def ir_constants(model: Path) -> Iterator[tuple[str, int]]:
    """(type, bytes) of each constant of an IR, `model` its .xml."""
    for layer in ET.parse(model).getroot().iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            kind = data.get("element_type", "unknown")
            yield IR_TYPES.get(kind, kind), int(data.get("size", "0"))
