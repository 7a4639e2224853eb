"""A transformers image classifier as a network of kdc."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.features import Staged

__all__ = ["HfClassifier"]


class HfClassifier(Staged):
    """A transformers image classifier as a network from images to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        model.config.return_dict = True  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images, return_dict=True).logits
        return logits

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        (images,) = inputs
        answer: Any = self.model(pixel_values=images, output_hidden_states=True)
        if answer.hidden_states is None:
            raise KdcError(f"{type(self.model).__name__} gives no hidden states", "name modules by their path")
        return answer.logits, list(answer.hidden_states)

    @contextmanager
    def attention(self, matrices: list[Tensor]) -> Iterator[None]:
        model: Any = self.model
        before = model.config._attn_implementation

        def ask(module: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return arguments, {**named, "output_attentions": True}

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            matrices.extend(output.attentions or ())

        handles = [model.register_forward_pre_hook(ask, with_kwargs=True), model.register_forward_hook(keep)]
        try:
            model.set_attn_implementation("eager")
            yield
        finally:
            model.set_attn_implementation(before)
            for handle in handles:
                handle.remove()
        if not matrices:
            raise KdcError(f"{type(model).__name__} shows no attention matrices", "choose a loss on stages")
