"""The folder that ships: BUNDLE/best/, made of the variant that was chosen. Needs neither torch nor a runtime."""

from compressor.deploy.folder import write_best

__all__ = ["write_best"]
