"""Models of Hugging Face transformers that hear a waveform: wav2vec 2.0, HuBERT, WavLM and their like."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.files.reading import json_value, read_text
from compressor.hub import from_hub
from compressor.models.building import described_by, require_files
from compressor.models.features import Staged
from compressor.models.hf_networks import drawn, loaded, told_of_weights, weights_of, with_all_but_the_head
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
from compressor.schema.base import parse
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.fitting import placeholder

__all__ = ["FAMILY", "HfSound", "from_run", "load_hf", "require_model", "save_architecture", "with_new_classifier"]

AUTO = "AutoModelForAudioClassification"
FAMILY = "hf"
HEARING = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "sew", "sew-d")
"""Types of models that take a waveform."""
PROCESSOR = "preprocessor_config.json"
SECONDS = 5
"""That a model hears which somebody else taught: for how long it was taught is not written down."""
CONFIG_BYTES = 16_000_000


class HfSound(Staged):
    """A transformers classifier as a network from a waveform, float32 [B, samples], to logits.

    `rate`: of the waveform, in Hz. `scaled`: each is brought to mean 0 and variance 1 first, as its feature extractor
    does it.
    """

    def __init__(self, model: nn.Module, rate: int, scaled: bool) -> None:
        super().__init__()
        self.model, self.rate, self.scaled = model, rate, scaled
        config: Any = model.config
        config.return_dict = True
        # What these models hide and leave out in training is drawn from numpy's generator, which no checkpoint holds.
        config.apply_spec_augment, config.layerdrop = False, 0.0

    def forward(self, waves: Tensor) -> Tensor:
        logits: Tensor = self.model(input_values=self._taken(waves)).logits
        return logits

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        answer: Any = self.model(input_values=self._taken(inputs[0]), output_hidden_states=True)
        if answer.hidden_states is None:
            raise KdcError(f"{type(self.model).__name__} gives no hidden states", "name modules by their path")
        return answer.logits, list(answer.hidden_states)

    def _taken(self, waves: Tensor) -> Tensor:
        if not self.scaled:
            return waves
        centred = waves - waves.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()


def require_model(reference: str) -> None:
    """Raise KdcError as `require_hf`, and for a folder with a model that takes no waveform."""
    require_hf(reference)
    if Path(reference).is_dir():
        _require_hearing(require_plain_config(Path(reference) / "config.json", f"hf:{reference}"), f"hf:{reference}")


def _require_hearing(config: dict[str, Any], source: str) -> None:
    kind = config.get("model_type")
    if kind not in HEARING:
        raise KdcError(
            f"{source} is of type {kind}, and kdc hears with models that take a waveform: {', '.join(HEARING)}",
            "one of these; or its answers as a table: --teacher outputs:FILE",
        )


def load_hf(reference: str, milliseconds: int | None) -> LoadedModel:
    """`hf:REPO_OR_PATH`: AutoModelForAudioClassification and the settings of its feature extractor; weights as
    safetensors only, as float32 however they are stored. Code in the repository is never run, and nothing is asked.

    A repository that brings no classifier gives a backbone. One that brings one hears `milliseconds`, or 5 seconds.
    """
    require_model(reference)
    source, folder = f"hf:{reference}", Path(reference)
    if folder.is_dir():
        stored, settings = stored_in(folder, source), _settings(folder, source)
        model, report = loaded(AUTO, reference, stored)
    else:
        with from_hub(source, "hf:PATH of a local folder, or check name and connection"):
            _require_hearing(require_plain_config(Path(in_cache(reference, "config.json")), source), source)
            settings = _settings(Path(in_cache(reference, PROCESSOR)).parent, source)
            model, report = loaded(AUTO, reference, None)
            stored = stored_in(Path(in_cache(reference, "config.json")).parent, source)
    network = HfSound(model, settings.rate, settings.scaled).float().eval()
    left = _left(network, set(report["missing_keys"]), source)
    require_finite(network, source)
    weights = weights_of(reference, network, model.config, left)
    names = class_names_in(model.config, source) if not left else None
    notes = told_of_weights(source, stored, () if left else sorted(report["unexpected_keys"]))
    preprocess: AudioPreprocess = placeholder("waveform", settings.rate)
    if not left:
        samples = settings.rate * SECONDS if milliseconds is None else round(settings.rate * milliseconds / 1000)
        hearing = {"sample_rate": settings.rate, "samples": samples, "features": "waveform"}
        preprocess = parse(AudioPreprocess, hearing, f"{source}: how it hears")
        stated = "as stated" if milliseconds is not None else "its weights do not say how long that is to be"
        notes.append(f"{source}, where it is not taught anew, hears {preprocess.seconds:g} s of a sound ({stated})")
    spellings = None if names is None else tuple((name,) for name in names)
    return check_input(
        LoadedModel(network, preprocess, spellings, weights, FAMILY, headless=bool(left), notes=tuple(notes))
    )


@dataclass(frozen=True)
class _Settings:
    """Of a feature extractor: the rate in Hz, and whether it scales each waveform."""

    rate: int
    scaled: bool


def _settings(folder: Path, source: str) -> _Settings:
    path = folder / PROCESSOR
    if not path.is_file():
        raise KdcError(f"{source}: {PROCESSOR} does not exist", "it says at which rate the model hears")
    values = json_value(read_text(path, most=CONFIG_BYTES), str(path))
    if not isinstance(values, dict):
        raise KdcError(f"{source}: {path} says nothing of a feature extractor")
    kind = values.get("feature_extractor_type", "Wav2Vec2FeatureExtractor")
    rate, scaled, size = values.get("sampling_rate"), values.get("do_normalize", True), values.get("feature_size", 1)
    if kind != "Wav2Vec2FeatureExtractor" or size != 1:
        raise KdcError(f"{source}: what its feature extractor ({kind}) does to sound is not supported by kdc")
    if not isinstance(rate, int) or isinstance(rate, bool) or not 1000 <= rate <= 384_000:
        raise KdcError(f"{source}: sampling_rate of its {PROCESSOR} is {rate!r}")
    return _Settings(rate, bool(scaled))


def _left(network: HfSound, missing: set[str], source: str) -> set[str]:
    """What the weights do not bring: nothing, or the classifier and the projection before it. Raises KdcError where
    anything else is missing: transformers fills such gaps at random."""
    model: Any = network.model
    base = f"{model.base_model_prefix}."
    inside = [name for name in missing if name.startswith(base) and not name.endswith("masked_spec_embed")]
    if inside:
        raise KdcError(
            f"{source}: its weights lack {', '.join(sorted(inside)[:3])}", "they are of another architecture"
        )
    return {name for name in missing if not name.startswith(base)}


def with_new_classifier(network: HfSound, classes: int) -> HfSound:
    """The same network and weights, but a new classifier of `classes` outputs, drawn as transformers draws it."""
    model: Any = network.model
    config = copy.deepcopy(model.config)
    config.num_labels = classes
    changed = HfSound(drawn(AUTO, config), network.rate, network.scaled)
    with_all_but_the_head(changed, network, classes)
    return changed.train(network.training)


def from_run(folder: Path, classes: int, numbers: int) -> HfSound:
    """The network that RUN/hf describes, without weights, which are so many numbers."""
    require_files(folder)
    _require_hearing(require_plain_config(folder / "config.json", str(folder)), str(folder))
    settings = _settings(folder, str(folder))
    with described_by(str(folder), numbers):
        config = transformers_library().AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.num_labels = classes
        return HfSound(drawn(AUTO, config), settings.rate, settings.scaled)


def save_architecture(network: HfSound, folder: Path) -> None:
    """Write to `folder`, for `from_run`, the model's configuration, and the settings of its feature extractor."""
    model: Any = network.model
    write_text(folder / "config.json", json.dumps(model.config.to_diff_dict(), indent=2, sort_keys=True) + "\n")
    settings = {
        "do_normalize": network.scaled, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
        "sampling_rate": network.rate,
    }  # fmt: skip
    write_text(folder / PROCESSOR, json.dumps(settings, indent=2, sort_keys=True) + "\n")
