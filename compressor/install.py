"""What kdc's hints tell people to install: the one place that names the packages and their lowest versions.

kdc itself is on no package index, so a hint names the packages and never an extra of kdc.
"""

__all__ = ["REQUIREMENTS", "install_line"]

# Package -> its versions, as in pyproject.toml (a test compares them).
REQUIREMENTS = {
    "onnxruntime": ">=1.20",
    "timm": ">=1.0.26",
    "torch": ">=2.9",
    # extra hf
    "datasets": ">=3",
    "pyarrow": ">=16",
    "transformers": ">=4.56",
    # extra text, with transformers
    "tokenizers": ">=0.22",
    # extra audio
    "soundfile": ">=0.13",
    # extra gguf
    "gguf": ">=0.10",
    # extra openvino
    "openvino": ">=2026.0",
    "nncf": ">=3.4,<4",
    # extra generate
    "onnxruntime-genai": ">=0.18",
    "openvino-genai": ">=2026.4.1",
    "openvino-tokenizers": ">=2026.4.1",
    # extra tensorrt
    "tensorrt-rtx": ">=1.7",
    # extra mobile
    "executorch": ">=1.5",
    "litert-torch": ">=0.10",
    "ai-edge-litert": ">=2.3",
    # extra prune
    "torch-pruning": ">=1.6,<2",
}


def install_line(*packages: str) -> str:
    """The line that installs `packages`, ready to be typed into a shell.

    Args:
        packages: names out of REQUIREMENTS.

    Returns:
        `pip install 'openvino>=2026.0' 'nncf>=3.4,<4'`, for example.
    """
    return " ".join(["pip install", *(f"'{package}{REQUIREMENTS[package]}'" for package in packages)])
