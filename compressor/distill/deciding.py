"""From a request whose recipe waits for the data to one that holds it."""

from contextlib import suppress

from compressor.data.samples import Dataset
from compressor.distill.api import counted, early_checked, require_one_process, training_data
from compressor.distill.host.resources import Resources
from compressor.distill.loop.learner import Term
from compressor.distill.methods.assistants import require_chain, require_possible
from compressor.distill.methods.control import require_comparable
from compressor.distill.methods.qat import require_quantizable
from compressor.distill.recipes import RecipeAsked
from compressor.distill.run_folder import Destination, acquire
from compressor.distill.views_again import as_recorded, settled_views
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.base import read_json
from compressor.schema.student import Request

__all__ = ["decided"]


def decided(
    request: Request, wanted: RecipeAsked, out: Destination | None, progress: Progress, data: Dataset | None = None,
    resources: Resources | None = None,
) -> tuple[Request, Dataset | None]:  # fmt: skip
    """`request` with the default recipe for its data, and the data, which were opened for that unless they are open.

    A run that is resumed goes by the counts that it recorded, so that it gets the same recipe without its data being
    opened. `out`: where the run goes; None: nowhere. `resources`: where the teacher's answers can be kept. Raises
    KdcError for what is wrong with the request, and before anything is opened where `out` may not be written.
    """
    before = _recorded(out) if out is not None and out.resume else None
    if before is not None and (regime := before.regime) is not None:
        request = wanted.decided(request, regime.images, regime.labelled, regime.validation, progress)
        return as_recorded(request, before), data
    if out is not None and not out.resume:
        acquire(out, request)
    if data is None:
        data = training_data(request, _checked(request), progress)
    request = wanted.decided(request, *counted(data), len(data.validation), progress)
    if request.assistants and request.qat is None:
        data = require_possible(request, progress, data)
    if out is not None:
        request = settled_views(request, data, out.folder, resources or Resources(), progress)
    return request, data


def _recorded(out: Destination) -> Request | None:
    """The run in the folder; None where there is none. Who goes on with it refuses what is damaged."""
    with suppress(KdcError):
        return read_json(out.folder / "run.json", Request)
    return None


def _checked(request: Request) -> list[Term]:
    """What is wrong with the request is said before data are opened for it: the losses are the same in all regimes."""
    require_one_process(request)
    if request.control:
        require_comparable(request)
    if request.assistants:
        require_chain(request)
    if request.qat is not None:
        require_quantizable(request)
    return early_checked(request)
