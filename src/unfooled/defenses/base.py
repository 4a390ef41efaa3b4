"""What a defense is: a module in front of a model, with a declared backward.

The declared backward is what an adaptive attacker uses: `exact`, the derivative of the transform itself; `identity`, as
if the transform were not there on the way back (BPDA, Athalye et al. 2018, arXiv:1802.00420, section 4.1); or a
differentiable module that stands in for it. Attack the defended model and the gradient goes through the defense as
declared; attack it with `surrogate=` the bare model and you get the non-adaptive attack.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..errors import ParameterError, must_be
from ..models.access import Access, access_of
from ..models.classifier import Model

Backward = Literal["exact", "identity"] | nn.Module


class Defense(nn.Module):
    """A transform of images (N, C, H, W), or of the last two axes of any images, before the model sees them."""

    name: ClassVar[str]
    backward: Backward

    def __init__(self, backward: Backward = "exact") -> None:
        super().__init__()
        if backward not in ("exact", "identity") and not isinstance(backward, nn.Module):
            raise must_be(type(self).__name__, "backward", "'exact', 'identity' or an nn.Module", backward)
        self.backward = backward

    @abstractmethod
    def transform(self, images: Tensor) -> Tensor:
        """The defense itself."""

    def forward(self, images: Tensor) -> Tensor:
        """The transform, differentiated as declared."""
        if self.backward == "exact" or not images.requires_grad:
            return self.transform(images)
        stand_in = images if self.backward == "identity" else self.backward(images)
        with torch.no_grad():
            value = self.transform(images)
        if stand_in.shape != value.shape:
            raise ParameterError(
                f"The backward of {type(self).__name__} must give images of the defense's shape {tuple(value.shape)}. "
                f"Got {tuple(stand_in.shape)}."
            )
        return straight(stand_in, value)


def straight(stand_in: Tensor, value: Tensor) -> Tensor:
    """A value, to the bit, with the gradient of what stands in for it (of the same shape)."""
    answer: Tensor = _Straight.apply(stand_in, value)  # type: ignore[no-untyped-call]
    return answer


class _Straight(torch.autograd.Function):
    """One tensor's value, to the bit, with another's gradient."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Defended(nn.Module):
    """A model behind defenses, applied in order. `undefended` is the model alone."""

    def __init__(self, model: Model, *defenses: Defense) -> None:
        super().__init__()
        self.defenses = nn.ModuleList(defenses)
        self.undefended = model

    @property
    def access(self) -> Access:
        """What the model behind the defenses lets an attacker see."""
        return access_of(self.undefended)

    def forward(self, images: Tensor) -> Any:
        """The model's output on the transformed images."""
        for defense in self.defenses:
            images = defense(images)
        return self.undefended(images)


def defend(model: Model, *defenses: Defense) -> Defended:
    """Put defenses in front of a model. The model itself is shared, not copied."""
    for defense in defenses:
        if not isinstance(defense, Defense):
            raise must_be("defend", "defenses", "defenses such as GaussianBlur(sigma=1.0)", defense)
    if not callable(model):
        raise must_be("defend", "model", "an nn.Module or a callable", type(model).__name__)
    return Defended(model, *defenses).train(isinstance(model, nn.Module) and model.training)
