"""GGUF files, as llama.cpp has them: transformers unpacks weights and tokenizer."""

import json
from collections.abc import Iterator
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


def read_gguf(path: Path, source: str) -> tuple[CausalLm, str, str]:
    """The network of a file, its licence, and a line on how its weights were stored."""
    gguf = needs("gguf", install_line("gguf"), "a GGUF file")
    transformers = transformers_library()
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("general.")}
        kinds = sorted({tensor.tensor_type.name for tensor in reader.tensors})
        count = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except Exception as error:  # a file may break it anywhere
        raise KdcError(f"{source} is no GGUF file that can be read: {first_line(error)}") from None
    with described_by(source, count), _no_bar():
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False, **as_float32(transformers)
        )
        read: Any = transformers.AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False
        )
    if hasattr(model.config, "quantization_config"):  # unpacked, it is one no longer; saving would refuse it
        del model.config.quantization_config
        model.hf_quantizer = None
    special = {name: str(token) for name in NAMED if (token := getattr(read, name, None)) is not None}
    template = read.chat_template if isinstance(read.chat_template, str) else None
    text = _without_strangers(read.backend_tokenizer.to_str(), model.get_input_embeddings().num_embeddings)
    tokenizer = kept(DocumentTokenizer(text, str(path), special, template))
    note = f"{source}: its weights are stored as {', '.join(kinds)}, and were unpacked to float32"
    return CausalLm(model, tokenizer).float().eval(), str(fields.get("general.license", "unknown"))[:200], note
