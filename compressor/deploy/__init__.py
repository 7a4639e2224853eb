"""The folder that ships: BUNDLE/best/, made of the variant that was chosen. Needs neither torch nor a runtime."""

from compressor.deploy.folder import problems_of_best, ship, write_best

__all__ = ["problems_of_best", "ship", "write_best"]
