"""Models from Hugging Face transformers: a repository of the hub, or a folder in its layout."""

import copy
import json
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.hub import from_hub
from compressor.models.building import described_by, require_files, require_size
from compressor.models.classes import spellings_of
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
from compressor.models.weights import heads, require_finite
from compressor.schema.base import parse
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.models.hf_classifier import HfClassifier
from compressor.tasks.image_classification.models.timm_models import preprocess_of, require_scale, require_three
from compressor.tasks.image_classification.preprocessing import normalise, resize_and_crop

__all__ = ["from_config", "load_hf", "preprocess_from_hf", "save_config", "with_new_classifier"]

AUTO = "AutoModelForImageClassification"


def load_hf(reference: str, input_size: int | None) -> LoadedModel:
    """`hf:REPO_OR_PATH`: AutoModelForImageClassification and its image processor; weights as safetensors only, as
    float32 however they are stored. Code in the repository is never run, and nothing is asked.

    `input_size` overrides the processor's own. A repository that brings no classifier gives a backbone, since what
    transformers puts there is random.
    """
    require_size(input_size)
    source, folder = f"hf:{reference}", Path(reference)
    stored: dict[str, tuple[str, int]] = {}
    require_hf(reference)
    if folder.is_dir():
        stored = _stored(folder, source)
        model, report, preprocess = _from_pretrained(reference, input_size, stored)
    else:
        with from_hub(source, "hf:PATH of a local folder, or check name and connection"):
            _require_rgb(Path(in_cache(reference, "config.json")), source)
            model, report, preprocess = _from_pretrained(reference, input_size, stored)
            stored = _stored(Path(in_cache(reference, "config.json")).parent, source)
    network = HfClassifier(model).float().eval()
    left = _left(network, set(report["missing_keys"]), source)
    require_finite(network, source)
    weights = weights_of(reference, network, model.config, left)
    names = _names(model.config, source) if not left else None
    notes = told_of_weights(source, stored, () if left else sorted(report["unexpected_keys"]))
    return check_input(LoadedModel(network, preprocess, names, weights, "hf", headless=bool(left), notes=tuple(notes)))


def _from_pretrained(
    reference: str, input_size: int | None, stored: dict[str, tuple[str, int]]
) -> tuple[Any, dict[str, Any], ImagePreprocess]:
    """The model, what transformers says of loading it, and its preprocessing."""
    model, report = loaded(AUTO, reference, stored)
    with described_by(f"hf:{reference}", None):
        return model, report, _preprocess(transformers_library(), reference, model.config, input_size)


def _left(network: HfClassifier, missing: set[str], source: str) -> set[str]:
    """What the weights do not bring: nothing, or the classifier. Raises KdcError where anything else is missing.
    transformers fills such gaps with random numbers."""
    config: Any = network.model.config
    classifier = {id(p) for layer in heads(network, config.num_labels) for p in layer.parameters()}
    wanting = [name for name, p in network.model.named_parameters() if name in missing and id(p) not in classifier]
    wanting += [name for name, _ in network.model.named_buffers() if name in missing and "running_" in name]
    if wanting:
        raise KdcError(f"{source}: its weights lack {', '.join(wanting[:3])}", "they are of another architecture")
    return missing


def from_config(folder: Path, classes: int, weights: int) -> nn.Module:
    """The network that RUN/hf/config.json describes, in float32 and without weights, which are so many numbers."""
    require_files(folder)
    _require_rgb(folder / "config.json", str(folder))
    with described_by(str(folder), weights):
        config = config_from(folder)
        config.num_labels = classes
        return HfClassifier(drawn(AUTO, config))


def with_new_classifier(network: HfClassifier, classes: int) -> HfClassifier:
    """The same network and weights, but a new classifier of `classes` outputs, drawn as transformers draws it."""
    config: Any = copy.deepcopy(network.model.config)
    config.num_labels = classes
    changed = HfClassifier(drawn(AUTO, config))
    with_all_but_the_head(changed, network, classes)
    return changed


def _stored(folder: Path, source: str) -> dict[str, tuple[str, int]]:
    """See `hugging_face.stored_in`."""
    stored = stored_in(folder, source)
    _require_rgb(folder / "config.json", source)
    return stored


def _require_rgb(file: Path, source: str) -> None:
    """Raise KdcError as `require_plain_config`, and for a network whose images are not RGB."""
    config = require_plain_config(file, source)
    if isinstance(config.get("num_channels"), int):
        require_three(config["num_channels"], source)


def _names(config: Any, source: str) -> tuple[tuple[str, ...], ...] | None:
    names = class_names_in(config, source)
    return None if names is None else spellings_of(names)


def _preprocess(transformers: Any, reference: str, config: Any, input_size: int | None) -> ImagePreprocess:
    if config.model_type == "timm_wrapper":
        return preprocess_of(config.pretrained_cfg, input_size, source=f"hf:{reference}")
    source = f"hf:{reference}"
    processor = transformers.AutoImageProcessor.from_pretrained(reference, trust_remote_code=False)
    values = processor.to_dict()
    _require_same(processor, preprocess_from_hf(values, None, source), source)
    return preprocess_from_hf(values, input_size, source)


def _require_same(processor: Any, preprocess: ImagePreprocess, source: str) -> None:
    """Raise KdcError where the processor turns an image into something else than `preprocess` does: not all that some
    of them do (flip the channels, shrink to 7/8, crop before resizing) can be read from their settings."""
    x, y = np.meshgrid(np.linspace(0, 255, 300), np.linspace(0, 255, 200))
    image = Image.fromarray(np.stack([x, y, (x + 255 - y) / 2], -1).astype(np.uint8))
    theirs = np.asarray(processor(images=image, return_tensors="np")["pixel_values"])
    ours = normalise(resize_and_crop(image, preprocess)[None], preprocess)
    # Rounding differs between Pillow and torchvision by a level or so; any true difference is many.
    levels = np.abs(theirs - ours).mean() * 255 * min(preprocess.std) if theirs.shape == ours.shape else np.inf
    if levels > 2:
        kind = type(processor).__name__
        raise KdcError(f"{source}: what its image processor ({kind}) does to images is not supported by kdc")


def preprocess_from_hf(values: dict[str, Any], input_size: int | None, source: str) -> ImagePreprocess:
    """A transformers image processor's settings as an ImagePreprocess; raises KdcError for what that cannot say."""
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
    return _as_preprocess(values, resize, cropped, mode, source)


def _as_preprocess(values: dict[str, Any], resize: Any, cropped: Any, mode: str, source: str) -> ImagePreprocess:
    # A processor that has no such setting (MobileViT's) normalises nothing.
    normal = values.get("do_normalize", "image_mean" in values)
    mean, std = (values.get("image_mean"), values.get("image_std")) if normal else ((0.0,) * 3, (1.0,) * 3)
    if mean is None or std is None:
        raise KdcError(f"{source}: its image processor normalises, and has no image_mean or image_std")
    if normal and values.get("include_top"):  # EfficientNet's processor then divides by std a second time
        std = [value * value for value in std]
    require_scale(std, f"{source}: its image processor")
    settings = {
        "input_size": cropped,
        "resize": resize,
        "resize_mode": mode,
        "interpolation": Image.Resampling(values.get("resample", 2)).name.lower(),
        "mean": tuple(mean),
        "std": tuple(std),
    }
    return parse(ImagePreprocess, settings, f"{source}: its image processor")


def save_config(network: HfClassifier, folder: Path) -> None:
    """Write the model's configuration to `folder`/config.json, for `from_config`."""
    config: Any = network.model.config
    write_text(folder / "config.json", json.dumps(config.to_diff_dict(), indent=2, sort_keys=True) + "\n")
