"""Where a training ran: versions and machine, without names or paths."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from compressor import __version__
from compressor.schema.student import Environment

__all__ = ["environment"]


def environment(device: torch.device) -> Environment:
    """This process's environment; `device` is where the training ran."""
    versions = {}
    for package in ("torch", "timm", "torchvision", "transformers", "numpy", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Environment(
        kdc=__version__,
        python=platform.python_version(),
        packages=versions,
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
