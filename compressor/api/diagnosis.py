"""`kdc doctor` as a function."""

from typing import TYPE_CHECKING

from compressor.api.call import api_call, listener
from compressor.api.results_before import DoctorResult
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike

__all__ = ["doctor"]


@api_call
def doctor(
    *,
    profile: "ProfileLike | None" = None,
    device: str = "local",
    device_python: str | None = None,
    progress: bool | Progress = False,
) -> DoctorResult:
    """Which runtimes and precisions work, here or on a device, and the install line for each that does not.

    Args:
        profile: name, path or Profile whose runtimes must work; those that do not stand in `missing`.
        device: "local", "ssh://[USER@]HOST[:PORT][/FOLDER]" or "adb:SERIAL[/FOLDER]".
        device_python: the interpreter on the device.

    Raises:
        KdcError: where the profile or the device cannot be had. A runtime that is missing raises nothing.
    """
    from compressor import pipeline
    from compressor.api.values import profile_of

    wanted = profile_of(profile) if profile is not None else None
    heard = listener(progress)
    result = pipeline.doctor(device, device_python, wanted, heard)
    return DoctorResult(result.diagnosis, result.text, result.missing, heard.warnings)
