"""The folder that ships: BUNDLE/best/, made of the variant that was chosen. Needs neither torch nor a runtime."""

from compressor.deploy.folder import ship, write_best

__all__ = ["ship", "write_best"]
