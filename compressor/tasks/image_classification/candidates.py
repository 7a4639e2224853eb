"""The catalogue: networks of mobile size that `kdc students` measures, by their names in timm, family by family.

Families span two to ten times in latency by their widths. Those with branches that are merged after training
(MobileOne, RepVGG, RepViT, FastViT) are measured as they ship, merged.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from compressor.errors import KdcError, os_error
from compressor.files.cache import cache_folder
from compressor.install import install_line
from compressor.models.loaded import LoadedModel
from compressor.models.timm_weights import base_of
from compressor.schema.base import read_json, write_json
from compressor.schema.preprocess import ImagePreprocess, Preprocess
from compressor.schema.students import Prunable
from compressor.tasks.image_classification.models import surgery, timm_models
from compressor.tasks.image_classification.models.surgery import require_operations
from compressor.tasks.image_classification.preprocessing import of_images
from compressor.tasks.image_classification.stored import StoredImages
from compressor.tasks.image_classification.task import TASK

__all__ = [
    "CATALOGUE", "as_candidate", "base_of", "create", "drawn", "has_weights", "impossible", "is_known", "possible",
]  # fmt: skip

HALF = "width0.5"
"""The share of the channels of a pruned candidate. Others can be named."""

CATALOGUE: dict[str, tuple[str, ...]] = {
    "MobileNetV2": ("mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075", "mobilenetv2_100", "mobilenetv2_140"),
    "MobileNetV3": (
        "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100", "mobilenetv3_large_075",
        "mobilenetv3_large_100",
    ),
    "MobileNetV4": (
        "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050", "mobilenetv4_conv_small", "mobilenetv4_conv_medium",
    ),
    "EfficientNet": ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2"),
    "EfficientNet-Lite": ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
    "MNASNet": ("mnasnet_small", "mnasnet_050", "mnasnet_100", "semnasnet_100"),
    "FBNet": ("fbnetc_100", "fbnetv3_b"),
    "LCNet": ("lcnet_035", "lcnet_050", "lcnet_075", "lcnet_100", "lcnet_150"),
    "TinyNet": ("tinynet_e", "tinynet_d", "tinynet_c", "tinynet_a"),
    "MobileOne": ("mobileone_s0", "mobileone_s1", "mobileone_s2"),
    "RepVGG": ("repvgg_a0", "repvgg_a1"),
    "RepViT": ("repvit_m0_9", "repvit_m1_0"),
    "GhostNet": ("ghostnet_050", "ghostnet_100"),
    "MixNet": ("mixnet_s", "mixnet_m"),
    "EdgeNeXt": ("edgenext_xx_small", "edgenext_x_small"),
    "FastViT": ("fastvit_t8", "fastvit_t12"),
    "ResNet": ("resnet10t", "resnet18"),
}  # fmt: skip
"""Family -> its candidates, from small to large."""


def is_known(name: str) -> bool:
    """Whether timm has a network of that name. Raises KdcError for a change after "+" that kdc does not make."""
    import timm

    require_operations(name)
    return bool(timm.is_model(base_of(name)))


def has_weights(name: str) -> bool:
    """Whether timm has weights for it, which the hub would be asked for."""
    import timm

    return bool(timm.is_model_pretrained(base_of(name)))


def possible(name: str) -> tuple[str, ...]:
    """The forms of timm's `name` that are changed for speed: `surgery.possible`, and with half of its channels."""
    return (*surgery.possible(name), *((f"{name}+{HALF}",) if _is_prunable(name) else ()))


def impossible() -> str | None:
    """What cannot be offered here, and why; None where all can."""
    if find_spec("torch_pruning") is None:
        return f"+{HALF} is left out: torch-pruning is not installed ({install_line('torch-pruning')})"
    return None


def _is_prunable(name: str) -> bool:
    """Whether its channels can be pruned. That is tried, with drawn weights, once for each version of the packages."""
    if impossible() is not None:
        return False
    packages = ("torch", "timm", "torch-pruning")
    of = " ".join([base_of(name), HALF, *(f"{package} {metadata.version(package)}" for package in packages)])
    path = cache_folder() / "prunable" / f"{hashlib.sha256(of.encode()).hexdigest()[:16]}.json"
    with suppress(KdcError):
        return read_json(path, Prunable).is_prunable
    kept = Prunable(of=of, is_prunable=True)
    try:
        with torch.random.fork_rng(devices=()):
            timm_models.create(f"{base_of(name)}+{HALF}", classes=10, input_size=64)
    except KdcError as error:
        kept = Prunable(of=of, is_prunable=False, why=error.message)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, f"keeping in {path.parent} what can be pruned") from error
    write_json(path, kept)
    return kept.is_prunable


def as_candidate(model: LoadedModel) -> tuple[str, int] | None:
    """The name and the input size by which `create` makes a network that takes as long as `model`, whatever its weights
    are. None where it is not one of timm's, or not square."""
    sizes = set(of_images(model.preprocess).input_size)
    if model.family != "timm" or len(sizes) != 1 or not is_known(model.weights.architecture):
        return None
    return model.weights.architecture, sizes.pop()


def create(name: str, classes: int, input_size: int) -> LoadedModel:
    """The candidate with drawn weights, as it ships: merged, in evaluation mode. Raises KdcError."""
    names: Sequence[str] = [f"class {number}" for number in range(classes)]
    model = TASK.create_student(f"timm:{name}", "random", names, input_size, None)
    return replace(model, network=TASK.merged(model.network.eval()))


def drawn(preprocess: Preprocess, count: int, path: Path) -> StoredImages:
    """`count` images of uniform noise, in the new .npy file `path`: how long a network takes depends on no image."""
    assert isinstance(preprocess, ImagePreprocess), "the table names this module for images"
    pixels = np.random.default_rng(0).integers(0, 256, (count, *preprocess.input_size, 3), np.uint8)
    np.save(path, pixels)
    return StoredImages(pixels, preprocess, path)
