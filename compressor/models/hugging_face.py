"""What every model of Hugging Face transformers takes, whatever its task: found, looked at, and loaded without running
its code. A repository of the hub, or a folder in its layout."""

import logging
import math
import re
from pathlib import Path
from typing import Any

import torch

from compressor.data.places import entries
from compressor.errors import KdcError, first_line, needs
from compressor.install import install_line
from compressor.models.building import config_in, require_files
from compressor.models.cards import CardTerms, terms_in
from compressor.models.checkpoints.files import require_weights
from compressor.schema.provenance import UNKNOWN
from compressor.terminal.printable import one_line

__all__ = [
    "TRANSFORMERS",
    "as_float32",
    "class_names_in",
    "in_cache",
    "licence_of",
    "pretrained",
    "require_hf",
    "require_plain_config",
    "stored_in",
    "terms_of",
    "transformers_library",
]

TRANSFORMERS = install_line("transformers")

TERMS = re.compile("licen[cs]e|terms|copying|eula", re.IGNORECASE)
"""Files that say what a model may be used for."""


def transformers_library() -> Any:
    """transformers, quiet; raises KdcError where it is not installed."""
    transformers = needs("transformers", TRANSFORMERS, "an hf: model")
    # Its bars and advice would land between kdc's own lines.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # What transformers imports later (torchao) is told that it calls torch in a way that will go: no user can mend it.
    logging.getLogger("torch.utils._pytree").addFilter(_is_for_users)
    return transformers


def _is_for_users(record: logging.LogRecord) -> bool:
    return "register_constant() on Enum subclasses" not in record.getMessage()


def require_hf(reference: str) -> None:
    """Raise KdcError where transformers is missing, `reference` names neither a folder nor what a repository can be
    called, or the folder holds no whole model. The hub is not asked."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    needs("transformers", TRANSFORMERS, "an hf: model")
    source, folder = f"hf:{reference}", Path(reference)
    if not folder.is_dir():
        try:
            validate_repo_id(reference)
        except HFValidationError:
            raise KdcError(
                f"{source} is neither a folder that exists nor the name of a repository",
                "hf:PATH of a local folder, or hf:OWNER/NAME",
            ) from None
        return
    if not (folder / "config.json").exists():
        raise KdcError(f"{source}: {folder / 'config.json'} does not exist")
    if (folder / "adapter_config.json").exists():  # transformers would leave it out, in silence
        raise KdcError(
            f"{source} holds an adapter (adapter_config.json), and kdc loads whole networks",
            "merge it into its model with peft (merge_and_unload) and save that; or move the adapter elsewhere",
        )


def as_float32(transformers: Any) -> dict[str, Any]:
    """The argument that has transformers load float32; by itself it takes what the configuration says."""
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if version >= (4, 56) else "torch_dtype": torch.float32}


def pretrained(auto: Any, reference: str, transformers: Any) -> tuple[Any, dict[str, Any]]:
    """A model of the repository or folder `reference`, and what transformers says of loading it. `auto`: a class, e.g.
    AutoModelForImageClassification. Weights are safetensors only, and code in the repository is never run. Raises
    KdcError for weights of other sizes than config.json says."""
    model, report = auto.from_pretrained(
        reference, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
        **as_float32(transformers),
    )  # fmt: skip
    misshapen = sorted(str(mismatch[0]) for mismatch in report["mismatched_keys"])
    if misshapen:
        raise KdcError(f"hf:{reference}: its weights are not of the sizes in its config.json: {misshapen[0]}")
    return model, report


def in_cache(reference: str, name: str) -> str:
    """Where a file of a repository of the hub lies, once it was fetched."""
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(reference, name))


SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64",
               "BOOL": "bool"}  # fmt: skip


def stored_in(folder: Path, source: str) -> dict[str, tuple[str, int]]:
    """What the weights in a model's folder are: name -> type of numbers, and how many. Raises KdcError for files that
    could not be read to their end, and for numbers that are no weights."""
    from safetensors import safe_open

    require_files(folder)
    require_plain_config(folder / "config.json", source)
    weights: dict[str, tuple[str, int]] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                    row = tensors.get_slice(name)
                    kind = str(row.get_dtype())
                    weights[name] = SAFETENSORS.get(kind, kind), math.prod(row.get_shape())
        except Exception as error:  # safetensors has a type of its own
            raise KdcError(f"{source} cannot be loaded: {file.name}: {first_line(error)}") from None
    require_weights({name: dtype for name, (dtype, _) in weights.items()}, source)
    return weights


def require_plain_config(file: Path, source: str) -> dict[str, Any]:
    """What a configuration says; raises KdcError for one that has its weights unpacked, or its layers fetched, by code
    from elsewhere."""
    config = config_in(file)
    if not isinstance(config, dict):
        raise KdcError(f"{source} cannot be loaded: {file} is no configuration of a model")
    if config.get("quantization_config"):
        raise KdcError(f"{source}: its weights are quantized (quantization_config), and kdc takes float ones")
    for key in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        if "/" in str(config.get(key)):
            raise KdcError(f"{source}: its config.json fetches code from elsewhere ({key} {config[key]})")
    return config


def class_names_in(config: Any, source: str) -> list[str] | None:
    """The names that a configuration gives its outputs, in their order; None where it says nothing."""
    try:
        id2label = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise KdcError(f"{source}: id2label of its config.json is no mapping of numbers to names") from None
    names = [id2label.get(index, "") for index in range(len(id2label))]
    if not names or any(name in ("", f"LABEL_{index}") for index, name in enumerate(names)):
        return None
    return names


def licence_of(reference: str, config: Any) -> str:
    """The licence that the configuration names, or the model card, or "unknown"."""
    stated = (getattr(config, "pretrained_cfg", None) or {}).get("license") or getattr(config, "license", None)
    if not stated:
        stated = _card_of(reference).licence
    return str(stated)[:200] if isinstance(stated, (str, list)) and stated else UNKNOWN


def terms_of(reference: str) -> str:
    """What is said of the use of a model beside its licence: by its card, or else which files in its folder do; or
    "unknown"."""
    stated = _card_of(reference).terms
    if stated is None and Path(reference).is_dir():
        files = [entry.name for entry in entries(Path(reference)) if TERMS.search(entry.stem) and entry.is_file()]
        stated = one_line(", ".join(files))[:200]
    return stated or UNKNOWN


def _card_of(reference: str) -> CardTerms:
    """What the card says, where there is one."""
    from huggingface_hub import try_to_load_from_cache

    card = Path(reference) / "README.md"
    if not Path(reference).is_dir():
        try:
            card = Path(in_cache(reference, "README.md"))
        except Exception:  # a model without a card, or the hub away while its weights lie in the cache
            card = Path(str(try_to_load_from_cache(reference, "README.md")))
    return terms_in(card) if card.is_file() else CardTerms()
