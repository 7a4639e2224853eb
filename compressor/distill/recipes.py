"""The recipes that hold where the user brings none. What a key means stands in `spec/recipe.py`."""

from typing import Any

__all__ = ["DEFAULT_STUDENT", "DISTILL", "TEACH"]

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
