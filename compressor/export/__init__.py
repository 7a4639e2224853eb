"""`kdc export`: torch -> ONNX -> the runtimes' own formats, and the bundle that holds them."""

from compressor.export.bundle import export_bundle

__all__ = ["export_bundle"]
