"""Models from Hugging Face transformers: a repository of the hub, or a folder in its layout."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from compressor.data.pictures import normalise, resize_and_crop
from compressor.errors import KdcError, first_line, needs
from compressor.hub import from_hub
from compressor.models.classes import spellings_of
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.timm_models import preprocess_of
from compressor.models.weights import heads, tensors_sha256
from compressor.spec.base import parse, write_text
from compressor.spec.preprocess import Preprocess
from compressor.spec.student import Weights

__all__ = ["HfClassifier", "from_config", "load_hf", "preprocess_from_hf", "save_config", "with_new_classifier"]

INSTALL = "pip install 'kdc[hf]'"


class HfClassifier(nn.Module):
    """A transformers image classifier as a network from pictures to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pictures).logits
        return logits


def _transformers() -> Any:
    transformers = needs("transformers", INSTALL, "an hf: model")
    # Its bars and advice would land between kdc's own lines.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_hf(reference: str, input_size: int | None) -> LoadedModel:
    """`hf:REPO_OR_PATH`: AutoModelForImageClassification and its image processor; weights as safetensors only.

    `input_size` overrides the processor's own. A repository that brings no classifier gives a model without class
    names, since what transformers puts there is random.
    """
    transformers = _transformers()
    source = f"hf:{reference}"
    folder = Path(reference)
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise KdcError(f"{source}: {folder / 'config.json'} does not exist")
    with _from_folder(source) if local else from_hub(source, "hf:PATH of a local folder, or check name and connection"):
        model, report = transformers.AutoModelForImageClassification.from_pretrained(
            reference, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        preprocess = _preprocess(transformers, reference, model.config, input_size)
        licence = _licence(reference, model.config)
    network = HfClassifier(model).eval()
    has_classifier = _complete(network, set(report["missing_keys"]), source)
    weights = Weights(
        source=source,
        architecture=str(getattr(model.config, "architecture", None) or model.config.model_type),
        sha256=tensors_sha256(network.state_dict()),
        licence=licence,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    names = _names(model.config) if has_classifier else None
    return check_input(LoadedModel(network, preprocess, names, weights, "hf"))


def _complete(network: HfClassifier, missing: set[str], source: str) -> bool:
    """Whether the weights bring the classifier too; raises KdcError where anything else is missing. transformers fills
    such gaps with random numbers."""
    config: Any = network.model.config
    classifier = {id(p) for layer in heads(network, config.num_labels) for p in layer.parameters()}
    wanting = [name for name, p in network.model.named_parameters() if name in missing and id(p) not in classifier]
    if wanting:
        raise KdcError(f"{source}: its weights lack {', '.join(wanting[:3])}", "they are of another architecture")
    return not missing


@contextmanager
def _from_folder(source: str) -> Iterator[None]:
    try:
        yield
    except KdcError:
        raise
    except Exception as error:  # transformers, safetensors and json each raise their own
        hint = "the folder must hold config.json and model.safetensors"
        raise KdcError(f"{source} cannot be loaded: {first_line(error)}", hint) from None


def from_config(folder: Path, classes: int) -> nn.Module:
    """The network that RUN/hf/config.json describes, without weights."""
    transformers = _transformers()
    with _from_folder(str(folder)):
        config = transformers.AutoConfig.from_pretrained(folder, num_labels=classes)
        return HfClassifier(transformers.AutoModelForImageClassification.from_config(config))


def with_new_classifier(network: HfClassifier, classes: int) -> HfClassifier:
    """The same network and weights, but a new classifier of `classes` outputs."""
    config: Any = copy.deepcopy(network.model.config)
    config.num_labels = classes
    changed = HfClassifier(_transformers().AutoModelForImageClassification.from_config(config))
    own = changed.state_dict()
    fitting = {name: value for name, value in network.state_dict().items() if value.shape == own[name].shape}
    changed.load_state_dict({**own, **fitting})
    return changed


def _names(config: Any) -> tuple[tuple[str, ...], ...] | None:
    id2label = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    names = [id2label.get(index, "") for index in range(len(id2label))]
    if not names or any(name in ("", f"LABEL_{index}") for index, name in enumerate(names)):
        return None
    return spellings_of(names)


def _preprocess(transformers: Any, reference: str, config: Any, input_size: int | None) -> Preprocess:
    if config.model_type == "timm_wrapper":
        return preprocess_of(config.pretrained_cfg, input_size)
    source, processor = f"hf:{reference}", transformers.AutoImageProcessor.from_pretrained(reference)
    values = processor.to_dict()
    _require_same(processor, preprocess_from_hf(values, None, source), source)
    return preprocess_from_hf(values, input_size, source)


def _require_same(processor: Any, how: Preprocess, source: str) -> None:
    """Raise KdcError where the processor turns a picture into something else than `how` does: not all that some of
    them do (flip the channels, shrink to 7/8, crop before resizing) can be read from their settings."""
    x, y = np.meshgrid(np.linspace(0, 255, 300), np.linspace(0, 255, 200))
    picture = Image.fromarray(np.stack([x, y, (x + 255 - y) / 2], -1).astype(np.uint8))
    theirs = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"])
    ours = normalise(resize_and_crop(picture, how)[None], how)
    # Rounding differs between Pillow and torchvision by a level or so; any true difference is many.
    levels = np.abs(theirs - ours).mean() * 255 * min(how.std) if theirs.shape == ours.shape else np.inf
    if levels > 2:
        kind = type(processor).__name__
        raise KdcError(f"{source}: what its image processor ({kind}) does to pictures is not supported by kdc")


def preprocess_from_hf(values: dict[str, Any], input_size: int | None, source: str) -> Preprocess:
    """A transformers image processor's settings as a Preprocess; raises KdcError for what a Preprocess cannot say."""
    if values.get("do_rescale", True) and abs(float(values.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
        raise KdcError(f"{source}: rescale_factor {values['rescale_factor']} of its image processor is not supported")
    if not values.get("do_rescale", True) or values.get("rescale_offset"):
        raise KdcError(f"{source}: an image processor that does not rescale to 0..1 is not supported")
    size = dict(values.get("size") or {})
    edge, share = size.get("shortest_edge"), values.get("crop_pct")
    crop = dict(values.get("crop_size") or {}) if values.get("do_center_crop") else {}
    if edge is not None and share is not None and edge < 384:  # ConvNeXT's rule
        resize, cropped, mode = (floor(edge / share),) * 2, (edge, edge), "shorter"
    elif edge is not None and share is not None:
        resize, cropped, mode = (edge, edge), (edge, edge), "squash"
    elif edge is not None and crop:
        resize, cropped, mode = (edge, edge), (crop["height"], crop["width"]), "shorter"
    elif edge is None and "height" in size:
        resize, mode = (size["height"], size["width"]), "squash"
        cropped = (crop["height"], crop["width"]) if crop else resize
    else:
        raise KdcError(f"{source}: its image processor's size {size or 'is missing'} is not supported without a crop")
    if input_size:
        resize = tuple(max(1, round(r * input_size / c)) for r, c in zip(resize, cropped, strict=True))
        cropped = (input_size, input_size)
    normal = values.get("do_normalize", True)
    mean, std = (values["image_mean"], values["image_std"]) if normal else ((0.0,) * 3, (1.0,) * 3)
    if normal and values.get("include_top"):  # EfficientNet's processor then divides by std a second time
        std = [value * value for value in std]
    settings = {
        "input_size": cropped,
        "resize": resize,
        "resize_mode": mode,
        "interpolation": Image.Resampling(values.get("resample", 2)).name.lower(),
        "mean": tuple(mean),
        "std": tuple(std),
    }
    return parse(Preprocess, settings, f"{source}: its image processor")


def _licence(reference: str, config: Any) -> str:
    """The licence that the model card names, or the configuration, or "unknown"."""
    stated = (getattr(config, "pretrained_cfg", None) or {}).get("license") or getattr(config, "license", None)
    card = Path(reference) / "README.md"
    if not stated and card.is_file():
        stated = _front_matter(card).get("license")
    if not stated and not Path(reference).is_dir():
        from huggingface_hub import ModelCard

        try:
            stated = ModelCard.load(reference).data.license
        except Exception:  # a model without a card, or the hub away while its weights lie in the cache
            stated = None
    return str(stated or "unknown")


def _front_matter(card: Path) -> dict[str, Any]:
    import yaml

    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return {}
    try:
        values = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def save_config(network: HfClassifier, folder: Path) -> None:
    """Write the model's configuration to `folder`/config.json, for `from_config`."""
    config: Any = network.model.config
    write_text(folder / "config.json", json.dumps(config.to_diff_dict(), indent=2, sort_keys=True) + "\n")
