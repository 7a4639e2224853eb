"""Names and state dicts of timm's models: whether one fits, which part of it is the classifier, and whose it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressor.errors import KdcError, first_line

__all__ = ["architecture_of", "base_of", "classifier_names", "fill", "other_architecture", "registered"]


def base_of(name: str) -> str:
    """The name in timm: `NAME.TAG+relu` without what is changed."""
    return name.split("+")[0]


def architecture_of(name: str) -> str:
    """`name` without the tag of its weights, but with what is changed: by this a run's network is built again."""
    base, *operations = name.split("+")
    return "+".join((base.split(".")[0], *operations))


def registered(name: str) -> Any:
    """timm's own pretrained_cfg of a model, which need not be built for it."""
    import timm

    try:
        return timm.get_pretrained_cfg(base_of(name), allow_unregistered=False)
    except RuntimeError as error:
        raise KdcError(f"timm:{name}: {first_line(error)}") from None


def other_architecture(stated: str | None, name: str, path: Path) -> tuple[str, ...]:
    """What to say where a checkpoint was saved by another architecture of timm's than `name`: the weights of
    tf_efficientnet_b0 fit efficientnet_b0, which answers otherwise with them. So do those of a network that was changed
    (`surgery`), in one that was not; where `name` changes more, that is said when it is made."""
    import timm

    if stated is None:
        return ()
    (theirs, *changed), (ours, *asked) = (architecture_of(text).split("+") for text in (stated, name))
    if not timm.is_model(theirs) or (theirs == ours and set(changed) <= {*asked}):
        return ()
    return (f"{path.name}: these are weights of {stated}, and are loaded into {architecture_of(name)}",)


def fill(
    network: nn.Module, state: Mapping[str, Tensor], name: str, where: str, *, new_classes: bool = False
) -> frozenset[str]:
    """Load `state` into timm's model `name`: all of it, but for the classifier where `state` has none (`new_classes`:
    or one of other classes). Returns the names that were left as they are; raises KdcError for anything else."""
    expected = network.state_dict()
    head = tuple(f"{part}." for part in classifier_names(name))
    missing = {key for key in expected.keys() - state.keys() if not key.endswith("num_batches_tracked")}
    misshapen = {key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape}
    lacking = {key for key in missing if key.startswith(head)}
    left = frozenset(key for key in expected if key.startswith(head))
    body_complete = not missing - lacking and (lacking == left or not lacking)
    wrong = sorted(missing - lacking if body_complete else missing)
    wrong += sorted(key for key in misshapen if not (new_classes and key.startswith(head)))
    wrong += sorted(state.keys() - expected.keys())
    if wrong:
        raise KdcError(f"{where} does not fit {name}: {_differences(wrong, expected, state)}")
    if lacking or misshapen:
        state = {
            **{key: value for key, value in state.items() if key not in left},
            **{key: expected[key] for key in left},
        }
    else:
        left = frozenset()
    network.load_state_dict(dict(state))
    return left


def _differences(wrong: Sequence[str], expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    def difference(key: str) -> str:
        if key not in state:
            return f"it has no {key}"
        if key not in expected:
            return f"{key} is no part of it"
        return f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"

    return "; ".join(difference(key) for key in wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")


def classifier_names(name: str) -> tuple[str, ...]:
    """What the classifier of timm's model `name` is called in its state dict; some models have two."""
    named = registered(name).classifier
    return tuple(named) if isinstance(named, (tuple, list)) else (str(named),)
