"""Models from Hugging Face transformers that classify texts, and encoders that are to be taught to."""

import copy
import json
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError, first_line
from compressor.files.atomic import write_text
from compressor.hub import from_hub
from compressor.models.building import described_by, require_files
from compressor.models.hf_networks import config_from, drawn, loaded, told_of_weights, weights_of, with_all_but_the_head
from compressor.models.hugging_face import (
    class_names_in,
    in_cache,
    require_hf,
    require_plain_config,
    stored_in,
    transformers_library,
)
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.weights import require_finite
from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.base import drawn_inputs
from compressor.tasks.text_classification.models.classifier import (
    TextClassifier,
    padding_matters,
    position_limit,
    token_types,
)
from compressor.tasks.text_classification.models.masked_lm import read_head, stored_head, write_head
from compressor.tasks.text_classification.tokenization import FILE, TextTokenizer, read_tokenizer

__all__ = ["built", "from_run", "load_hf", "preprocess_for", "save_architecture", "with_new_classifier"]

LONGEST = 512
"""Tokens that a model reads which somebody else taught, where it could take more: what that was is not written down."""
LEAST_OF_VOCABULARY = 0.75
ENCODERS = "take an encoder: BERT, RoBERTa, DistilBERT, ModernBERT and their like"
AUTO = "AutoModelForSequenceClassification"


def load_hf(reference: str, max_length: int | None) -> LoadedModel:
    """`hf:REPO_OR_PATH`: AutoModelForSequenceClassification and its tokenizer.json; weights as safetensors only, as
    float32 however they are stored. Code in the repository is never run, and nothing is asked.

    `max_length`: tokens of a text that it reads; None: as many as it takes, and 512 at most. A repository that brings
    no classifier gives a backbone, since what transformers puts there is random.
    """
    require_hf(reference)
    source, folder = f"hf:{reference}", Path(reference)
    if folder.is_dir():
        stored, tokenizer = stored_in(folder, source), read_tokenizer(folder, source)
        model, report = loaded(AUTO, reference, stored)
    else:
        with from_hub(source, "hf:PATH of a local folder, or check name and connection"):
            require_plain_config(Path(in_cache(reference, "config.json")), source)
            tokenizer = read_tokenizer(Path(in_cache(reference, FILE)).parent, source)
            model, report = loaded(AUTO, reference, None)
            stored = stored_in(Path(in_cache(reference, "config.json")).parent, source)
    with described_by(source, None):
        head = stored_head(reference, sorted(report["unexpected_keys"]), model)
    network = TextClassifier(model, tokenizer.text, head).float().eval()
    left = _left(network, set(report["missing_keys"]), source)
    require_finite(network, source)
    weights = weights_of(reference, network, model.config, left)
    names = class_names_in(model.config, source) if not left else None
    notes = told_of_weights(source, stored, () if left or head else sorted(report["unexpected_keys"]))
    preprocess = preprocess_for(network, tokenizer, source, max_length)
    notes += _told_of_tokenizer(transformers_library(), reference, tokenizer, source)
    spellings = None if names is None else tuple((name,) for name in names)
    return check_input(
        LoadedModel(network, preprocess, spellings, weights, "hf", headless=bool(left), notes=tuple(notes))
    )


def _told_of_tokenizer(transformers: Any, reference: str, tokenizer: TextTokenizer, source: str) -> list[str]:
    """What its file does otherwise than people expect."""
    notes = []
    if start := tokenizer.unused_start:
        notes.append(
            f"{source}: its {FILE} puts no {start} before a text, since it has no post_processor; a model that was "
            "trained with one answers otherwise without"
        )
    try:
        text = _read_otherwise(transformers, reference, tokenizer)
    except Exception as error:  # kdc needs it for nothing else; each tokenizer fails in its own way
        why = first_line(error)
        return [*notes, f"{source}: transformers cannot read its tokenizer ({why}), so {FILE} was held against nothing"]
    if text:
        notes.append(
            f"{source}: its {FILE}, by which kdc goes, reads {text!r} as other tokens than transformers does, which "
            "goes by tokenizer_config.json too; where the model was trained with transformers, "
            "AutoTokenizer.from_pretrained(PATH).save_pretrained(PATH) mends the file"
        )
    return notes


def _left(network: TextClassifier, missing: set[str], source: str) -> set[str]:
    """What the weights do not bring: nothing, or the classifier and what stands right before it (a head of several
    layers, a pooler). Raises KdcError where anything else is missing: transformers fills such gaps at random."""
    model: Any = network.model
    base = f"{model.base_model_prefix}."
    inside = [name for name in missing if name.startswith(base) and not name.startswith(f"{base}pooler.")]
    if inside:
        raise KdcError(
            f"{source}: its weights lack {', '.join(sorted(inside)[:3])}", "they are of another architecture"
        )
    return missing


def preprocess_for(
    network: TextClassifier, tokenizer: TextTokenizer, source: str, max_length: int | None, *, drawn: bool = False
) -> TextPreprocess:
    """How the network reads texts, single ones or pairs. Raises KdcError where the tokenizer is of another model, and
    where it takes fewer tokens than `max_length`. `drawn`: its weights are, so that a larger vocabulary means
    nothing."""
    model: Any = network.model
    rows, limit = _rows(model, source), position_limit(model, LONGEST)
    if tokenizer.size > rows or (tokenizer.size < LEAST_OF_VOCABULARY * rows and not drawn):
        raise KdcError(
            f"{source}: its tokenizer has {tokenizer.size:,} tokens, and the model {rows:,}: it is that of another "
            "model",
            f"put the {FILE} beside it that it was trained with",
        )
    if max_length is not None and max_length > limit:
        raise KdcError(f"--max-length {max_length}: {source} takes {limit} tokens at most", f"--max-length {limit}")
    pad = getattr(model.config, "pad_token_id", None)
    preprocess = TextPreprocess(
        tokenizer=tokenizer.sha256,
        vocabulary=rows,
        max_length=max_length or min(limit, LONGEST),
        token_types=token_types(model),
        pad_id=pad if isinstance(pad, int) and 0 <= pad < rows else 0,
    )
    network.eval()
    try:
        matters = padding_matters(network, drawn_inputs(preprocess.inputs, 0), preprocess.pad_id, drawn=drawn)
    except Exception as error:  # each network notices in its own way
        raise KdcError(
            f"{source} ({model.config.model_type}) does not take texts of any length: {first_line(error)}", ENCODERS
        ) from None
    if matters:
        raise KdcError(
            f"{source} ({model.config.model_type}) answers otherwise where a text is filled up, so that it cannot "
            "learn in batches",
            ENCODERS,
        )
    return preprocess


def _rows(model: Any, source: str) -> int:
    """How many tokens its table has; raises KdcError for a network of another kind than kdc knows."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise KdcError(
            f"{source} ({model.config.model_type}) is an encoder and a decoder, and kdc takes encoders alone",
            f"{ENCODERS}; or let it predict elsewhere: --teacher outputs:FILE",
        )
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise KdcError(f"{source} ({model.config.model_type}): kdc does not know its kind of embedding", ENCODERS)
    return table.num_embeddings


def from_run(folder: Path, classes: int, numbers: int, tokenizer: TextTokenizer) -> TextClassifier:
    """The network that RUN/hf/config.json describes, without weights, which are so many numbers."""
    require_files(folder)
    require_plain_config(folder / "config.json", str(folder))
    with described_by(str(folder), numbers):
        config = config_from(folder)
        config.num_labels = classes
        return TextClassifier(built(config), tokenizer.text, read_head(folder))


def built(config: Any) -> nn.Module:
    """The network of a configuration, in float32, its weights drawn from torch's generator."""
    return drawn(AUTO, config)


def with_new_classifier(network: TextClassifier, classes: int) -> TextClassifier:
    """The same network and weights, but a new classifier of `classes` outputs, drawn as transformers draws it."""
    model: Any = network.model
    config = copy.deepcopy(model.config)
    config.num_labels = classes
    changed = TextClassifier(built(config), network.tokenizer, network.head)
    with_all_but_the_head(changed, network, classes)
    return changed


def save_architecture(network: TextClassifier, folder: Path) -> None:
    """Write to `folder`, for `from_run`, the model's configuration, and the head over the vocabulary that it came
    with."""
    model: Any = network.model
    write_text(folder / "config.json", json.dumps(model.config.to_diff_dict(), indent=2, sort_keys=True) + "\n")
    if network.head is not None:
        write_head(network.head, folder)


PROBES = (
    'The quick Brown-FOX, 12.5 jumps over "it" & isn\'t there!',
    "Ça va, naïve Œuvre? ÄÖÜ ß İstanbul",
    "日本語と中文 한국어 مرحبا 🙂",
    " two  blanks\tand a\nline ",
)


def _read_otherwise(transformers: Any, reference: str, tokenizer: TextTokenizer) -> str:
    """What transformers' own tokenizer of a folder or repository reads as other tokens; "" where it reads all as
    `tokenizer` does. tokenizer_config.json may change what tokenizer.json says, `do_lower_case` say."""
    theirs = transformers.AutoTokenizer.from_pretrained(reference, trust_remote_code=False)
    read = [theirs(text, truncation=False, padding=False)["input_ids"] for text in PROBES]
    ours = tokenizer.encode([(text,) for text in PROBES])
    return next((text for text, ids, mine in zip(PROBES, read, ours, strict=True) if ids != mine.ids.tolist()), "")
