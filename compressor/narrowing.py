"""A profile with only those of its targets and precisions that --target and --precision name."""

from collections.abc import Sequence

from compressor.errors import KdcError, did_you_mean
from compressor.schema.profile import Profile

__all__ = ["narrow"]


def narrow(profile: Profile, targets: Sequence[str], precisions: Sequence[str]) -> Profile:
    """`profile` with only what is named: `targets`, each a runtime or RUNTIME-PRECISION, and of those only
    `precisions`. Raises KdcError for what it has not."""
    if targets:
        profile = _with_targets(profile, targets)
    return _with_precisions(profile, precisions, named=bool(targets)) if precisions else profile


def _with_precisions(profile: Profile, precisions: Sequence[str], *, named: bool) -> Profile:
    """`named`: the targets were asked for by name, so that none of them may drop out."""
    known = list(dict.fromkeys(name for target in profile.targets for name in target.precisions))
    has = ", ".join(f"{target.runtime} ({', '.join(target.precisions)})" for target in profile.targets)
    for name in precisions:
        if name not in known:
            near = did_you_mean(name, known)
            raise KdcError(f"--precision {name}: no target of profile {profile.name} has it{near}", f"it has: {has}")
    left_out = [target.runtime for target in profile.targets if not set(target.precisions) & set(precisions)]
    if named and left_out:
        raise KdcError(
            f"--target names {left_out[0]}, which has none of --precision {', '.join(precisions)}", f"it has: {has}"
        )
    kept = (
        target.model_copy(update={"precisions": tuple(name for name in target.precisions if name in precisions)})
        for target in profile.targets
    )
    return profile.model_copy(update={"targets": tuple(target for target in kept if target.precisions)})


def _with_targets(profile: Profile, targets: Sequence[str]) -> Profile:
    rows = {target.runtime: target for target in profile.targets}
    variants = {
        f"{t.runtime}-{precision}": (t.runtime, precision) for t in profile.targets for precision in t.precisions
    }
    chosen: dict[str, set[str]] = {}
    for name in targets:
        if name in rows:
            chosen.setdefault(name, set()).update(rows[name].precisions)
        elif name in variants:
            runtime, precision = variants[name]
            chosen.setdefault(runtime, set()).add(precision)
        else:
            known = [*rows, *variants]
            raise KdcError(
                f"--target {name}: profile {profile.name} does not have it{did_you_mean(name, known)}",
                f"it has: {', '.join(known)}",
            )
    kept = tuple(
        rows[name].model_copy(update={"precisions": tuple(p for p in rows[name].precisions if p in precisions)})
        for name, precisions in sorted(chosen.items(), key=lambda item: list(rows).index(item[0]))
    )
    return profile.model_copy(update={"targets": kept})
