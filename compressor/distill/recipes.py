"""The recipes that hold where the user brings none. What a key means stands in `spec/recipe.py`."""

from typing import Any

__all__ = ["DEFAULT_STUDENT", "DISTILL", "PEERS", "SELF", "TEACH", "default_for"]

DEFAULT_STUDENT = "timm:mobilenetv3_small_100"

DISTILL: dict[str, Any] = {
    "schema": 1,
    "optimizer": {"lr_for_batch": 128},
    "losses": [
        {"name": "kd", "weight": 0.9, "temperature": 4.0},
        {"name": "cross_entropy", "weight": 0.1},
    ],
}

TEACH: dict[str, Any] = {
    "schema": 1,
    "epochs": 10,
    "head_epochs": 1,
    "optimizer": {"lr": 1e-3, "lr_for_batch": 128},
    "losses": [{"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.0}],
}

SELF: dict[str, Any] = {
    **DISTILL,
    # Progressive self-distillation: the share of the last epoch's answers grows along a line to 0.8 (arXiv 2006.12000).
    "losses": [
        {"name": "kd", "weight": {"from": 0.0, "to": 0.8}, "temperature": 1.0},
        {"name": "cross_entropy", "weight": {"from": 1.0, "to": 0.2}},
    ],
}

PEERS: dict[str, Any] = {
    **DISTILL,
    # Deep mutual learning of two networks of the same kind (arXiv 1706.00384): labels and the peer, weighted alike.
    "losses": [
        {"name": "mutual", "weight": 1.0, "temperature": 1.0},
        {"name": "cross_entropy", "weight": 1.0},
    ],
}


def default_for(teacher: str, student: str, student_init: str) -> dict[str, Any]:
    """The recipe for `--teacher`; a peer is the student's twin, and begins as it does where that is not a file."""
    if teacher == "self":
        return SELF
    if teacher == "peers":
        init = student_init if student_init in ("pretrained", "random") else "random"
        return {**PEERS, "peers": [{"student": student, "init": init}]}
    return DISTILL
