"""`kdc export`: torch -> ONNX -> the runtimes' own formats, and the bundle that holds them."""

from compressor.export.bundle.build import export_bundle
from compressor.export.bundle.variants import Delivery

__all__ = ["Delivery", "export_bundle"]
