"""Networks that are trained with more branches than they ship with: RepVGG, MobileOne, RepViT, FastViT, GhostNetV3."""

from torch import nn

__all__ = ["merged"]

MERGES = ("reparameterize", "switch_to_deploy", "fuse")
"""What timm's modules call it when they become one convolution (Ding et al. 2021, arXiv 2101.03697, section 3.3)."""


def merged(network: nn.Module) -> nn.Module:
    """A copy of `network` with its branches merged: the same answers but for rounding. Itself where it has none."""
    if not any(hasattr(module, name) for module in network.modules() for name in MERGES):
        return network
    from timm.utils.model import reparameterize_model

    result: nn.Module = reparameterize_model(network)
    return result.eval()
