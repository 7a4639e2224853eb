"""kdc, the Knowledge Distillation Compressor. Importing this package imports nothing heavy."""

__version__ = "0.1.0"

__all__ = ["__version__"]
