"""A language model as a folder of transformers, weights and all: what exports begin with."""

import json
from pathlib import Path
from typing import Any

from compressor.errors import os_error
from compressor.files.atomic import write_text
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel
from compressor.tasks.causal_lm.models.loading import save_tokenizer
from compressor.tasks.causal_lm.models.network import CausalLm

__all__ = ["transformers_folder"]

IDS = ("config.json", "generation_config.json")


def transformers_folder(loaded: LoadedModel, folder: Path) -> None:
    """Write a model to a new folder as transformers reads it: config.json, model.safetensors in float32, tokenizer.

    Args:
        loaded: a causal language model.
        folder: a new folder. Its config.json says as `bos_token_id`, `eos_token_id` and `pad_token_id` which tokens
            start, end and fill up a document as kdc reads it, whatever the model's own said.

    Raises:
        KdcError: it cannot be written.
    """
    network = inner_of(loaded.network)
    assert isinstance(network, CausalLm)
    tokenizer, model = network.tokenizer, network.model
    ids = {"bos_token_id": tokenizer.start_id, "eos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.pad_id}
    saved: Any = model
    try:
        saved.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        for path in (folder / name for name in IDS):
            if path.is_file():
                values = json.loads(path.read_text(encoding="utf-8"))
                write_text(path, json.dumps({**values, **ids}, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise os_error(error, f"writing {folder}") from error
