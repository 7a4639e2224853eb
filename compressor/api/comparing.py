"""`kdc report A B C` as a function."""

from collections.abc import Sequence

from compressor.api.call import StrPath, api_call
from compressor.api.outputs import refuse_out
from compressor.api.results import ComparisonResult
from compressor.api.values import optional_path, path_of
from compressor.errors import KdcError
from compressor.files.writing import write_output

__all__ = ["compare"]


@api_call
def compare(
    bundles: Sequence[StrPath], *, format: str = "md", out: StrPath | None = None, overwrite: bool = False
) -> ComparisonResult:
    """What several bundles ship, side by side: `kdc report A B C`. Writes nothing into them.

    Args:
        bundles: folders that `export` made.
        format: "md" or "json": of the result's `text`.
        out: a file to write that text to.
        overwrite: replace the file.

    Raises:
        KdcError: see `export`.
    """
    from compressor.report import side_by_side

    folders, file = [path_of(bundle, "bundles") for bundle in bundles], optional_path(out, "--out")
    if len(folders) < 2:
        raise KdcError("bundles holds one, and two are needed to compare", "kdc report A B")
    refuse_out(file, format, ComparisonResult.FORMATS, folders, overwrite)
    done = ComparisonResult(side_by_side(folders), format=format)
    if file is not None:
        write_output(file, done.text, "kdc report", overwrite=overwrite)
    return done
