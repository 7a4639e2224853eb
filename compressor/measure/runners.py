"""The scripts that measure: kdc runs those that it was installed with, so those in a bundle must be the same ones.

A bundle can come from anywhere, and whoever made it can seal it again. Its scripts are for machines where kdc is not
installed; the one who runs them there trusts them.
"""

from pathlib import Path

from compressor import __version__
from compressor.assets import runner_scripts
from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.schema.bundle import Bundle
from compressor.schema.language.bundle import LanguageBundle

__all__ = ["require_own_runners"]

FOLDER = "runners/"
NAMED = 3


def require_own_runners(bundle: Path, manifest: Bundle | LanguageBundle) -> None:
    """Raise KdcError where the scripts in the bundle are not those of this kdc, naming them and the kdc that made it.

    Figures of two scripts are not the same figures, and a script that nobody knows is not run.
    """
    scripts = {name: path for name, path in runner_scripts().items() if path.suffix == ".py"}
    there = {entry.path.removeprefix(FOLDER): entry for entry in manifest.support if entry.path.startswith(FOLDER)}
    differ = [name for name in scripts if name not in there or there[name].sha256 != file_sha256(scripts[name])]
    differ += sorted(name for name in there if name.endswith(".py") and name not in runner_scripts())
    if not differ:
        return
    names = ", ".join(differ[:NAMED]) + (f" and {len(differ) - NAMED} more" if len(differ) > NAMED else "")
    raise KdcError(
        f"{bundle} was made by kdc {manifest.kdc}, whose runners are not those of this kdc {__version__} ({names}): "
        "they are not run",
        f"`kdc export` the bundle again, or measure it with the kdc that made it ({manifest.kdc})",
    )
