"""GGUF files, as llama.cpp has them: transformers unpacks weights and tokenizer."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, first_line, needs
from compressor.install import install_line
from compressor.models.building import described_by
from compressor.models.hugging_face import as_float32, transformers_library
from compressor.tasks.causal_lm.models.network import CausalLm
from compressor.tasks.causal_lm.tokenizer import NAMED, DocumentTokenizer, kept

__all__ = ["read_gguf"]


@contextmanager
def _no_bar() -> Iterator[None]:
    """Inside, transformers unpacks without a bar, which would land between kdc's own lines."""
    from transformers import modeling_gguf_pytorch_utils as unpacking

    drawing = unpacking.tqdm
    unpacking.tqdm = partial(drawing, disable=True)
    try:
        yield
    finally:
        unpacking.tqdm = drawing


def _without_strangers(text: str, rows: int) -> str:
    """A tokenizer.json without the tokens that transformers adds of itself, for which the model has no row."""
    values = json.loads(text)
    values["added_tokens"] = [token for token in values["added_tokens"] if token["id"] < rows]
    return json.dumps(values)


def _rope(name: str) -> tuple[str, ...]:
    """The name of a field, where it says how positions are scaled."""
    return (name,) if name.endswith(".rope.scaling.type") else ()


def _refuse_scaled(sizes: Mapping[str, int], fields: Mapping[str, Any], source: str) -> None:
    """Raise KdcError for positions that are scaled (Llama 3.1 and later, long-context models): transformers unpacks all
    but that, and answers otherwise then."""
    told = [name for name in sizes if name.startswith(("rope_freqs", "rope_factors"))]
    told += [name for name, value in fields.items() if _rope(name) and value != "none"]
    if told and fields.get("general.architecture") != "gpt-oss":
        raise KdcError(
            f"{source}: its positions are scaled ({told[0]}), which transformers does not read out of a GGUF file",
            "hf:REPO_OR_PATH of the model that it was made of",
        )


def _require_all(model: Any, missing: Collection[str], sizes: Mapping[str, int], source: str) -> None:
    """Raise KdcError where the file lacks weights, which would be drawn, or holds some that the network has not."""
    if missing:
        raise KdcError(
            f"{source} lacks {', '.join(sorted(missing)[:3])}", "of a model in parts: gguf-split --merge FIRST OUT.gguf"
        )
    held, read = sum(sizes.values()), sum(weights.numel() for weights in model.parameters())
    if held not in (read, read + sizes.get("output.weight", 0)):  # tied, it may be there once more
        raise KdcError(
            f"{source} holds {held:,} numbers, and transformers has room for {read:,} in a {model.config.model_type}: "
            "it would be another model",
            "hf:REPO_OR_PATH of the model that it was made of",
        )


def read_gguf(path: Path, source: str) -> tuple[CausalLm, str, str]:
    """The network of a file, its licence, and a line on how its weights were stored."""
    gguf = needs("gguf", install_line("gguf"), "a GGUF file")
    transformers = transformers_library()
    try:
        reader = gguf.GGUFReader(path)
        fields = {
            name: field.contents()
            for name, field in reader.fields.items()
            if name.startswith(("general.", *_rope(name)))
        }
        sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        kinds = sorted({tensor.tensor_type.name for tensor in reader.tensors})
    except Exception as error:  # a file may break it anywhere
        raise KdcError(
            f"{source} is no GGUF file that can be read: {first_line(error)}", "is it whole? copy it once more"
        ) from None
    _refuse_scaled(sizes, fields, source)
    with described_by(source, sum(sizes.values())), _no_bar():
        model: Any
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False, output_loading_info=True,
            **as_float32(transformers),
        )  # fmt: skip
        read: Any = transformers.AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False
        )
    _require_all(model, report["missing_keys"], sizes, source)
    if hasattr(model.config, "quantization_config"):  # unpacked, it is one no longer; saving would refuse it
        del model.config.quantization_config
        model.hf_quantizer = None
    special = {name: str(token) for name in NAMED if (token := getattr(read, name, None)) is not None}
    template = read.chat_template if isinstance(read.chat_template, str) else None
    text = _without_strangers(read.backend_tokenizer.to_str(), model.get_input_embeddings().num_embeddings)
    tokenizer = kept(DocumentTokenizer(text, str(path), special, template))
    note = f"{source}: its weights are stored as {', '.join(kinds)}, and were unpacked to float32"
    return CausalLm(model, tokenizer).float().eval(), str(fields.get("general.license", "unknown"))[:200], note
