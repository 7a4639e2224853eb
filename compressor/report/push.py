"""What of a bundle goes to the Hugging Face hub, when it is asked for: the model card, what ships, and the report.

Neither the teacher's weights go, nor anything of the test data: report.html stays here, since it shows test images, and
the report that goes names no test sample. The token is huggingface_hub's own: HF_TOKEN, or that
of `hf auth login`; kdc neither reads nor takes one.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, first_line
from compressor.files.bundle_folder import BEST, counted, files_of
from compressor.hub import offline_if_unreachable
from compressor.report.render.formats import to_json
from compressor.report.render.page import to_markdown
from compressor.schema.report import Report

__all__ = ["push", "repository"]

CARD = "README.md"
NAME = re.compile(r"hf:([a-z0-9][\w.-]*/[a-z0-9][\w.-]*)", re.ASCII | re.IGNORECASE)


def repository(reference: str) -> str:
    """`OWNER/NAME` of "hf:OWNER/NAME"; raises KdcError."""
    match = NAME.fullmatch(reference)
    if match is None:
        raise KdcError(f"--push {reference} names no repository of the Hugging Face hub", "--push hf:OWNER/NAME")
    return match[1]


def push(bundle_dir: Path, report: Report, reference: str, allow_unmeasured: bool = False) -> str:
    """Put the bundle's card, report and best/ into a repository of models, in one commit; returns where it can be seen.

    A repository that does not exist is made, private. Of one that does, files of those names are replaced, a best/ that
    ships something else goes, and all else stays. Raises KdcError where nothing ships, where the hub cannot be reached,
    and where it refuses.
    """
    name = repository(reference)
    if report.winner is None:
        raise KdcError(f"{bundle_dir} ships nothing: {report.why}", f"kdc report {bundle_dir}")
    folder = counted(bundle_dir)
    paths = [path for path in files_of(folder) if path == CARD or path.startswith(f"{BEST}/")]
    shown = _without_samples(report)
    texts = {"report.json": to_json(shown), "report.md": to_markdown(shown, allow_unmeasured)}
    files: dict[str, Path | bytes] = {path: folder / path for path in paths}
    files |= {name: text.encode() for name, text in texts.items()}
    with offline_if_unreachable() as unreachable:
        if unreachable is not None:
            raise KdcError(f"--push {reference}: the Hugging Face hub cannot be reached: {unreachable}", "try it later")
        try:
            with _without_bars():
                return _committed(name, files, report)
        except KdcError:
            raise
        except Exception as error:  # huggingface_hub, httpx and requests each raise their own
            raise _refused(error, reference) from None


def _without_samples(report: Report) -> Report:
    """The report without the names of test samples that were right in the baseline and are wrong."""
    if report.release is None:
        return report
    variants = tuple(variant.model_copy(update={"flips": ()}) for variant in report.release.variants)
    return report.model_copy(update={"release": report.release.model_copy(update={"variants": variants})})


@contextmanager
def _without_bars() -> Iterator[None]:
    """Inside, huggingface_hub draws nothing on stderr."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _committed(name: str, files: dict[str, Path | bytes], report: Report) -> str:
    """`files`: by their path in the repository."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    url = api.create_repo(name, repo_type="model", private=True, exist_ok=True)
    there = api.list_repo_files(name, repo_type="model")
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in files.items()
    ]
    gone = [path for path in there if path.startswith(f"{BEST}/") and path not in files]
    operations += [CommitOperationDelete(path_in_repo=path) for path in gone]
    message = f"{report.winner}: {report.verdict} on {report.profile}, kdc {report.kdc}"
    api.create_commit(name, operations, commit_message=message[:200], repo_type="model")
    return str(url)


def _refused(error: Exception, reference: str) -> KdcError:
    said = ": ".join(first_line(each).rstrip(".") for each in (error, error.__cause__) if isinstance(each, Exception))
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return KdcError(
            f"--push {reference} is refused ({status}): {said}",
            "HF_TOKEN=… of somebody who may write there, or hf auth login",
        )
    return KdcError(f"--push {reference} failed: {said}", "nothing of the bundle was changed")
