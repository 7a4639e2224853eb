"""Causal language models of transformers: folders, repositories, GGUF files, and what a configuration describes."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError, needs
from compressor.files.atomic import write_text
from compressor.hub import from_hub
from compressor.install import install_line
from compressor.models.building import described_by, require_files
from compressor.models.hf_networks import config_from, drawn, loaded, told_of_weights
from compressor.models.hugging_face import (
    in_cache,
    licence_of,
    require_hf,
    require_plain_config,
    stored_in,
    terms_of,
    transformers_library,
)
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.tokenizers import FILE
from compressor.models.weights import require_finite, tensors_sha256
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.provenance import UNKNOWN
from compressor.schema.student import Weights
from compressor.tasks.base import drawn_inputs
from compressor.tasks.causal_lm.models.network import CausalLm, block_limit, looks_ahead
from compressor.tasks.causal_lm.tokenizer import CONFIG, TEMPLATE, DocumentTokenizer, read_tokenizer

__all__ = [
    "GGUF",
    "built",
    "from_run",
    "load_hf",
    "preprocess_for",
    "require_model",
    "save_architecture",
    "save_tokenizer",
]

AUTO = "AutoModelForCausalLM"
GGUF = ".gguf"
LONGEST = 512
"""Tokens of a block, where the model takes more and nobody states how many."""
LEAST_OF_VOCABULARY = 0.75


def require_model(reference: str) -> None:
    """Raise KdcError for what `load_hf` would, as far as that is known without loading anything."""
    path = Path(reference)
    if path.suffix == GGUF:
        if not path.is_file():
            raise KdcError(f"hf:{reference} does not exist")
        transformers_library()
        needs("gguf", install_line("gguf"), "a GGUF file")
    else:
        require_hf(reference)


def load_hf(reference: str, max_length: int | None) -> LoadedModel:
    """`hf:REPO_OR_PATH`: AutoModelForCausalLM and its tokenizer.json; weights as safetensors only, as float32 however
    they are stored. `hf:FILE.gguf`: a GGUF file, its weights and its tokenizer, unpacked. Code in the repository is
    never run. `max_length`: tokens of a block; None: as many as it takes, and 512 at most."""
    require_model(reference)
    source, folder = f"hf:{reference}", Path(reference)
    notes: list[str] = []
    if folder.suffix == GGUF:
        from compressor.tasks.causal_lm.models.gguf_file import read_gguf

        network, licence, note = read_gguf(folder, source)
        notes.append(note)
    else:
        with from_hub(source, "hf:PATH of a local folder, or check name and connection"):
            if not folder.is_dir():
                require_plain_config(Path(in_cache(reference, "config.json")), source)
                folder = Path(in_cache(reference, FILE)).parent
                in_cache_if_there(reference)
                stored = None
            else:
                stored = stored_in(folder, source)
            model, report = loaded(AUTO, reference, stored)
            stored = stored or stored_in(Path(in_cache(reference, "config.json")).parent, source)
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise KdcError(f"{source}: its weights lack {missing}", "they are of another architecture")
        notes += told_of_weights(source, stored, sorted(report["unexpected_keys"]))
        network = CausalLm(model, read_tokenizer(folder, source, model.config)).float().eval()
        licence = licence_of(reference, model.config)
    require_finite(network, source)
    config: Any = network.model.config
    weights = Weights(
        source=source,
        architecture=str(config.model_type),
        sha256=tensors_sha256(network.state_dict()),
        licence=licence,
        terms=terms_of(reference) if folder.suffix != GGUF else UNKNOWN,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    preprocess = preprocess_for(network, source, max_length)
    return check_input(LoadedModel(network, preprocess, None, weights, "hf", notes=tuple(notes)))


def in_cache_if_there(reference: str) -> None:
    """Fetch what a repository may have beside its tokenizer.json."""
    from huggingface_hub.utils import EntryNotFoundError

    for name in (CONFIG, TEMPLATE):
        try:
            in_cache(reference, name)
        except EntryNotFoundError:
            continue


def preprocess_for(
    network: CausalLm, source: str, max_length: int | None, *, drawn: bool = False
) -> LanguagePreprocess:
    """How the network reads documents. Raises KdcError where the tokenizer is of another model, where it takes fewer
    tokens than `max_length`, and where it is no causal model. `drawn`: its weights are, so that a larger vocabulary
    means nothing."""
    model: Any = network.model
    tokenizer = network.tokenizer
    rows = model.get_output_embeddings().weight.shape[0]
    limit = block_limit(model) or LONGEST
    if tokenizer.size > rows or (tokenizer.size < LEAST_OF_VOCABULARY * rows and not drawn):
        raise KdcError(
            f"{source}: its tokenizer has {tokenizer.size:,} tokens, and the model {rows:,}: it is that of another "
            "model",
            f"put the {FILE} beside it that it was trained with",
        )
    if max_length is not None and max_length > limit:
        raise KdcError(f"--max-length {max_length}: {source} takes {limit} tokens at most", f"--max-length {limit}")
    preprocess = LanguagePreprocess(
        tokenizer=tokenizer.sha256,
        vocabulary=rows,
        max_length=max_length or min(limit, LONGEST),
        start_id=tokenizer.start_id,
        end_id=tokenizer.end_id,
        pad_id=tokenizer.pad_id,
        chat_template=tokenizer.template_sha256,
    )
    network.eval()
    if looks_ahead(network, drawn_inputs(preprocess.inputs, 0)[0]):
        raise KdcError(
            f"{source} ({model.config.model_type}) answers otherwise where other tokens follow",
            "it is no causal language model",
        )
    return preprocess


def from_run(folder: Path, numbers: int) -> CausalLm:
    """The network that RUN/hf/config.json describes, without weights, which are so many numbers."""
    require_files(folder)
    require_plain_config(folder / "config.json", str(folder))
    tokenizer = read_tokenizer(folder, str(folder))
    with described_by(str(folder), numbers):
        return CausalLm(built(config_from(folder)), tokenizer)


def built(config: Any) -> nn.Module:
    """The network of a configuration, in float32, its weights drawn from torch's generator."""
    return drawn(AUTO, config)


def save_architecture(network: CausalLm, folder: Path) -> None:
    """Write to `folder`, for `from_run`, the model's configuration and all of its tokenizer, as transformers reads
    them."""
    model: Any = network.model
    write_text(folder / "config.json", json.dumps(model.config.to_diff_dict(), indent=2, sort_keys=True) + "\n")
    save_tokenizer(network.tokenizer, folder)


def save_tokenizer(tokenizer: DocumentTokenizer, folder: Path) -> None:
    """Write all of a tokenizer to `folder`, as transformers reads it."""
    write_text(folder / FILE, tokenizer.text)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.special}
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    if tokenizer.template is not None:
        write_text(folder / TEMPLATE, tokenizer.template)
