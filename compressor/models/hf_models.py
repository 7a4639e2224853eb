"""Models from Hugging Face transformers: a repository of the hub, or a folder in its layout."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import floor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressor.errors import KdcError, needs
from compressor.hub import from_hub
from compressor.models.classes import imagenet_spellings
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.timm_models import preprocess_of
from compressor.models.weights import tensors_sha256
from compressor.spec.base import parse
from compressor.spec.preprocess import Preprocess
from compressor.spec.student import Weights

__all__ = ["HfClassifier", "from_config", "load_hf", "preprocess_from_hf", "save_config"]

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


def load_hf(reference: str, input_size: int | None, classes: int | None = None) -> LoadedModel:
    """`hf:REPO_OR_PATH`: AutoModelForImageClassification and its image processor; weights as safetensors only.

    `classes`: give it a new classifier of that many outputs. `input_size` overrides the processor's own.
    """
    transformers = _transformers()
    source = f"hf:{reference}"
    folder = Path(reference)
    new_head = {} if classes is None else {"num_labels": classes, "ignore_mismatched_sizes": True}
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise KdcError(f"{source}: {folder / 'config.json'} does not exist")
    with _from_folder(source) if local else from_hub(source, "hf:PATH of a local folder, or check name and connection"):
        model = transformers.AutoModelForImageClassification.from_pretrained(
            reference, use_safetensors=True, trust_remote_code=False, **new_head
        )
        preprocess = _preprocess(transformers, reference, model.config, input_size)
    network = HfClassifier(model.eval())
    names = None if classes is not None else _names(model.config)
    weights = Weights(
        source=source,
        architecture=str(getattr(model.config, "architecture", None) or model.config.model_type),
        sha256=tensors_sha256(network.state_dict()),
        licence=_licence(reference, model.config),
        parameters=sum(p.numel() for p in network.parameters()),
    )
    return check_input(LoadedModel(network, preprocess, names, weights, "hf"))


@contextmanager
def _from_folder(source: str) -> Iterator[None]:
    try:
        yield
    except KdcError:
        raise
    except Exception as error:  # transformers, safetensors and json each raise their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        hint = "the folder must hold config.json and model.safetensors"
        raise KdcError(f"{source} cannot be loaded: {reason}", hint) from None


def from_config(folder: Path, classes: int) -> nn.Module:
    """The network that RUN/hf/config.json describes, without weights."""
    transformers = _transformers()
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=classes)
    return HfClassifier(transformers.AutoModelForImageClassification.from_config(config))


def _names(config: Any) -> tuple[tuple[str, ...], ...] | None:
    id2label = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    names = [id2label.get(index, "") for index in range(len(id2label))]
    if not names or any(name in ("", f"LABEL_{index}") for index, name in enumerate(names)):
        return None
    imagenet = imagenet_spellings()
    if len(names) == len(imagenet) and all(n.split(",")[0] == s[0] for n, s in zip(names, imagenet, strict=True)):
        return imagenet
    return tuple((name,) for name in names)


def _preprocess(transformers: Any, reference: str, config: Any, input_size: int | None) -> Preprocess:
    if config.model_type == "timm_wrapper":
        return preprocess_of(config.pretrained_cfg, input_size)
    processor = transformers.AutoImageProcessor.from_pretrained(reference)
    return preprocess_from_hf(processor.to_dict(), input_size, f"hf:{reference}")


def preprocess_from_hf(values: dict[str, Any], input_size: int | None, source: str) -> Preprocess:
    """A transformers image processor's settings as a Preprocess; raises KdcError for what a Preprocess cannot say."""
    from PIL.Image import Resampling

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
    settings = {
        "input_size": cropped,
        "resize": resize,
        "resize_mode": mode,
        "interpolation": Resampling(values.get("resample", 2)).name.lower(),
        "mean": tuple(values["image_mean"]) if normal else (0.0, 0.0, 0.0),
        "std": tuple(values["image_std"]) if normal else (1.0, 1.0, 1.0),
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
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = network.model.config
    (folder / "config.json").write_text(json.dumps(config.to_diff_dict(), indent=2, sort_keys=True), encoding="utf-8")
