"""Checkpoint files, read without running what is in them: safetensors, and what torch.save wrote.

Beside tensors a training script saves its settings. Their classes are replaced by ones that do nothing, so that the
tensors can be had; a global that is not on our list refuses the file.
"""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from compressor.errors import KdcError, first_line, os_error
from compressor.files.reading import open_regular

__all__ = ["load_content", "plain", "require_checkpoint", "stored_in_half"]

SAVE_PLAIN = "save it as .safetensors, or with torch.save(model.state_dict(), …)"

INFLATED = 4
"""How many times larger than the file its content may be: torch.save does not compress."""


class LeftOut:
    """Stands for an object in a checkpoint that is no tensor: nothing of it is kept, nothing of it runs."""

    def __new__(cls, *_: object) -> "LeftOut":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class PlainDict:
    """Stands for a kind of dict: what is in it is kept, since weights may lie there."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


NUMPY = ("numpy.dtype", "numpy.ndarray", *(
    f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")
), *(f"numpy.dtypes.{kind}DType" for kind in (
    "Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float16", "Float32", "Float64",
    "Str", "Object",
)))  # fmt: skip
LEFT_OUT = (
    *NUMPY, "argparse.Namespace", "types.SimpleNamespace", "typing.Any", "datetime.date", "datetime.datetime",
    "datetime.timedelta", *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "str", "tuple", "bool")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local")
      for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")),
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "mmengine.logging.history_buffer.HistoryBuffer",
)  # fmt: skip
DICTS = (
    "collections.defaultdict", "yacs.config.CfgNode", "easydict.EasyDict",
    "pytorch_lightning.utilities.parsing.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)  # fmt: skip
STAND_INS: list[Any] = [(LeftOut, name) for name in LEFT_OUT] + [(PlainDict, name) for name in DICTS]
NETWORKS = ("torch.nn.modules.", "torch.nn.parallel.", "timm.", "torchvision.models.", "transformers.", "__main__.")


def load_content(path: Path) -> Any:
    """What a .safetensors file holds, or what torch.save wrote to any other: mappings, lists, numbers and tensors.

    Raises KdcError for a file that is missing, damaged or no regular file, and for a pickle that would run code.
    """
    require_checkpoint(path)
    with open_regular(path) as file:
        if path.suffix == ".safetensors":
            return _safetensors(path, file)
        try:
            _refuse_inflated(file, path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's advice on pickle protocols
                return _unpickled(file, path)
        except OSError as error:
            raise os_error(error, f"reading {path}") from error


def require_checkpoint(path: Path) -> None:
    """Raise KdcError where there is no such file."""
    if not path.exists():
        raise KdcError(f"checkpoint {path} does not exist", "give a .safetensors or a weights-only .pth file")


def _safetensors(path: Path, file: BinaryIO) -> Any:
    from safetensors.torch import load_file

    start = file.read(4)
    if start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise KdcError(f"checkpoint {path} cannot be read: it is a pickle under the name of a safetensors file")
    try:
        return load_file(path)
    except Exception as error:  # safetensors has a type of its own
        raise KdcError(f"checkpoint {path} cannot be read: {first_line(error)}") from None


def _refuse_inflated(file: BinaryIO, path: Path) -> None:
    """Raise KdcError for an archive that would take far more memory than it takes on disk."""
    try:
        with zipfile.ZipFile(file) as archive:
            inside = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # torch's own, older format; or damaged
        inside = 0
    size = file.seek(0, 2)
    file.seek(0)
    if inside > INFLATED * size + 1_000_000:
        raise KdcError(f"checkpoint {path} is damaged, or no checkpoint: {size} bytes that claim to hold {inside}")


def _unpickled(file: BinaryIO, path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        name = match[1] if match else ""
        if name.startswith(NETWORKS):
            raise KdcError(
                f"checkpoint {path} is a whole pickled network ({name}), which is code, and was not loaded",
                "where it was made: torch.save(model.state_dict(), …), or .safetensors",
            ) from None
        raise KdcError(
            f"checkpoint {path} holds more than tensors (pickled code or objects{f': {name}' if name else ''}), "
            "and was not loaded",
            SAVE_PLAIN,
        ) from None
    except Exception as error:  # on damaged bytes torch.load raises nearly anything, even an OSError
        if "TorchScript" in str(error):
            raise KdcError(
                f"checkpoint {path} is a TorchScript archive, which is code: not loaded", SAVE_PLAIN
            ) from None
        raise KdcError(f"checkpoint {path} is damaged, or no checkpoint: {first_line(error)}") from None


def plain(name: str, tensor: Tensor, where: str) -> Tensor:
    """`tensor` without its gradient; raises KdcError for numbers that are no weights as they stand."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu" or tensor.is_nested:
        raise KdcError(f"{where}: {name} is quantized, sparse or without values", "save it as plain float32")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise KdcError(f"{where}: {name} claims {tensor.numel()} values, and holds fewer", "save it anew")
    require_weights({name: str(tensor.dtype).removeprefix("torch.")}, where)
    return tensor


FLOATS = ("float16", "bfloat16", "float32", "float64")
COUNTS = ("int64", "int32", "bool")


def require_weights(dtypes: dict[str, str], where: str) -> None:
    """Raise KdcError for types of numbers that cannot be taken as float32: complex ones, and what was quantized.
    Buffers may be whole numbers, weights and biases not."""
    for name, dtype in dtypes.items():
        last = name.rpartition(".")[2]
        if dtype in FLOATS or (dtype in COUNTS and last not in ("weight", "bias", "running_mean", "running_var")):
            continue
        description = "complex numbers" if dtype.startswith("complex") else f"{dtype}, so quantized or packed"
        raise KdcError(
            f"{where}: its weights {name} are {description}; kdc takes floating-point weights", "save it as float32"
        )


def stored_in_half(dtypes: set[str]) -> str | None:
    """What to say of floating-point types that are not float32; None where there are no others."""
    other_types = sorted(dtypes & {"float16", "bfloat16", "float64"})
    return f"weights stored as {' and '.join(other_types)} are loaded as float32" if other_types else None
