"""What a defense is: a module in front of a model, with a declared backward.

The declared backward is what an adaptive attacker uses: `exact`, the derivative of the transform itself; `identity`, as
if the transform were not there on the way back (BPDA, Athalye et al. 2018, arXiv:1802.00420, section 4.1); `smooth`, a
differentiable stand-in that some defenses bring along; or a differentiable module of one's own that stands in for it.
Attack the defended model and the gradient goes through the defense as declared; attack it with `surrogate=` the bare
model and you get the non-adaptive attack.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .. import text
from ..errors import ModelError, ParameterError, UnfooledError, must_be
from ..models.access import Access, access_of
from ..models.classifier import Model

Backward = Literal["exact", "identity", "smooth"] | nn.Module


class Defense(nn.Module):
    """A transform of images (N, C, H, W), or of the last two axes of any images, before the model sees them.

    Pixels lie in [0, 1]. A random one draws from torch's global generator of the images' device, anew in each pass.
    """

    name: ClassVar[str]
    backwards: ClassVar[tuple[str, ...]] = ("exact", "identity")  # those that it knows by name
    random: ClassVar[bool] = False
    backward: Backward

    def __init__(self, backward: Backward = "exact") -> None:
        super().__init__()
        if backward not in self.backwards and not isinstance(backward, nn.Module):
            known = ", ".join(repr(name) for name in self.backwards)
            raise must_be(type(self).__name__, "backward", f"{known} or an nn.Module", backward)
        self.backward = backward

    @property
    def reshapes(self) -> bool:
        """Whether what it gives has another shape than the images: then the model behind it is one for that shape."""
        return False

    @abstractmethod
    def transform(self, images: Tensor) -> Tensor:
        """The defense itself."""

    def smooth(self, images: Tensor) -> Tensor:
        """What the backward `smooth` differentiates, where the defense knows one."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """The transform, differentiated as declared."""
        if self.backward == "exact" or not images.requires_grad:
            return self.transform(images)
        if isinstance(self.backward, nn.Module):
            stand_in: Tensor = self.backward(images)
        else:
            stand_in = images if self.backward == "identity" else self.smooth(images)
        with torch.no_grad():
            value = self.transform(images)
        if stand_in.shape != value.shape:
            raise ParameterError(
                f"The backward of {type(self).__name__} must give images of the defense's shape {tuple(value.shape)}. "
                f"Got {tuple(stand_in.shape)}."
            )
        return straight(stand_in, value)

    def text(self) -> str:
        """The defense as `parse` reads it: its first option, and those that differ from their defaults.

        Raises `ParameterError` where the backward is a module.
        """
        parts = []
        for at, (name, option) in enumerate(inspect.signature(type(self)).parameters.items()):
            value = getattr(self, name)
            if isinstance(value, nn.Module):
                raise ParameterError(f"A {name} that is a module has no text. Got {type(value).__name__}.")
            if at == 0 or value != option.default:
                short = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else text.show(value)
                parts.append(short if at == 0 and name == self.name else f"{name}={short}")
        return f"{self.name}:{','.join(parts)}"


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
    """A model behind defenses, applied in order.

    undefended:  the model that stands behind them.
    beside:      another one for images as they are, which `defend` may have been given; else None.
    """

    def __init__(self, model: Model, *defenses: Defense, alone: Model | None = None) -> None:
        super().__init__()
        self.defenses = nn.ModuleList(defenses)
        self.undefended = model
        self.beside = alone

    @property
    def alone(self) -> Model | None:
        """What an attacker who does not know of the defenses attacks; None where a defense gives another shape."""
        if self.beside is not None:
            return self.beside
        return None if any(getattr(one, "reshapes", False) for one in self.defenses) else self.undefended

    @property
    def access(self) -> Access:
        """What the model behind the defenses lets an attacker see."""
        return access_of(self.undefended)

    def forward(self, images: Tensor) -> Any:
        """The model's output on the transformed images."""
        shape = images.shape
        for defense in self.defenses:
            images = defense(images)
        if images.shape == shape:
            return self.undefended(images)
        try:
            return self.undefended(images)
        except (UnfooledError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            which = next(type(one).__name__ for one in self.defenses if getattr(one, "reshapes", False))
            raise ModelError(
                f"{which} makes {tuple(images.shape[1:])} of images of shape {tuple(shape[1:])}. The model behind it must be "
                f"a network for that shape, trained behind the defense; this one fails: {error}"
            ) from error


def defend(model: Model, *defenses: Defense, alone: Model | None = None) -> Defended:
    """Put defenses in front of a model. The model itself is shared, not copied.

    alone:  of a defense that gives another shape: a network for images as they are, which an attacker who does not know
            of the defense attacks instead. None: the model itself, where it takes them.
    """
    for defense in defenses:
        if not isinstance(defense, Defense):
            raise must_be("defend", "defenses", "defenses such as GaussianBlur(sigma=1.0)", defense)
    for name, given in (("model", model), ("alone", alone)):
        if not callable(given) and (given is not None or name == "model"):
            raise must_be("defend", name, "an nn.Module or a callable", type(given).__name__)
    return Defended(model, *defenses, alone=alone).train(isinstance(model, nn.Module) and model.training)
