"""What was done to images before the network, where the file does not say it and the user does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ... import text
from ...errors import ModelError, ParameterError, must_be
from ..facts import Facts
from ..pixels import Flip, Pixels, Resize, Step


@dataclass(frozen=True)
class Stated:
    """The user's account of the preprocessing; empty for none: the network takes pixels in [0, 1] as they are.

    mean, std:  one float for each channel, or one for all, in units of [0, 1] pixels.
    size:       (height, width) of what the network takes; images are resized to it, without a crop.
    bgr:        whether it takes blue, green, red; mean and std are then in that order.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    bgr: bool = False

    @classmethod
    def read(cls, owner: str, mean: Any, std: Any, size: Any, scale: Any = 1, bgr: Any = False) -> Stated:
        """From options: numbers, sequences of them, or texts such as "0.485,0.456,0.406" and "224x224".

        scale:  what comes last, a factor: 255 for a network of pixels from 0 to 255.
        """
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
            raise must_be(owner, "scale", "a float above 0, such as 255", scale)
        if not isinstance(bgr, bool):
            raise must_be(owner, "bgr", "true or false", bgr)
        if (mean is None) != (std is None):
            raise ParameterError(f"{owner} needs mean and std together, such as mean=0.5 and std=0.5. One is missing.")
        means, stds = _numbers(owner, "mean", mean), _numbers(owner, "std", std)
        if len(means) != len(stds):
            raise ParameterError(f"{owner} needs as many means as stds. Got {len(means)} and {len(stds)}.")
        if not all(value > 0 for value in stds):
            raise must_be(owner, "std", "above 0, for each channel", std)
        if scale != 1:
            means, stds = means or (0.0,), tuple(value / scale for value in stds or (1.0,))
        return cls(means, stds, _sides(owner, size), bgr)

    def applied(self, network: nn.Module, facts: Facts, channels: int | None = None) -> nn.Module:
        """The network with all of that before it, as one of the user's images, and its facts with it.

        channels:  of the network; None: as many as means, or as in its first convolution.

        Raises `ParameterError` where none of that says how many channels there are.
        """
        if facts.size is not None:
            network = Shaped(network, facts.size, facts.source)
        words = facts.preprocessing
        if self.mean or self.size is not None or self.bgr:
            channels = 3 if self.bgr else channels or (len(self.mean) if len(self.mean) > 1 else _channels(network))
            if channels is None:
                raise ParameterError(
                    f"{facts.source} does not say how many channels it takes: give mean and std for each, such as "
                    "mean=0,0,0 and std=1,1,1."
                )
            steps: list[Step] = [] if self.size is None else [Resize(*self.size)]
            steps += [Flip()] if self.bgr else []
            network = Pixels(network, steps, self.mean or (0.0,), self.std or (1.0,), channels, facts)
            words = "; ".join(filter(None, [network.words, words]))
        network.facts = replace(facts, preprocessing=words)  # type: ignore[assignment]
        return network


def _channels(network: nn.Module) -> int | None:
    """What the first convolution takes, if that may be an image."""
    first = next((held.shape[1] for held in network.parameters() if held.dim() == 4), None)
    return first if first in (1, 3, 4) else None


class Shaped(nn.Module):
    """A network of images of one shape only, which says so."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], source: str) -> None:
        super().__init__()
        self.network = network
        self.shape, self.source = shape, source

    @property
    def raw(self) -> Any:
        """Labels (N,) by the network's own pipeline, where it has one."""
        return getattr(self.network, "raw", None)

    def forward(self, images: Tensor) -> Any:
        """What the network answers to images (N, *shape)."""
        given = tuple(images.shape[1:])
        if given != self.shape:
            cure = ""
            if len(self.shape) == len(given) == 3 and given[1:] != self.shape[1:]:
                height, width = self.shape[1:]
                side = height if height == width else f"{height}x{width}"
                cure = f" Have them resized: --model-option size={side} (in Python size={side!r})."
            raise ModelError(f"{self.source} takes images of shape {self.shape}. These have {given}.{cure}")
        return self.network(images)


def _numbers(owner: str, name: str, given: Any) -> tuple[float, ...]:
    found = [text.value(part) for part in given.split(",")] if isinstance(given, str) else given
    if found is None:
        return ()
    found = list(found) if isinstance(found, Sequence) else [found]
    if not found or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in found):
        raise must_be(owner, name, "a number, or one for each channel, such as 0.485,0.456,0.406", given)
    return tuple(map(float, found))


def _sides(owner: str, given: Any) -> tuple[int, int] | None:
    found = [text.value(part) for part in given.lower().split("x")] if isinstance(given, str) else given
    if found is None:
        return None
    found = list(found) if isinstance(found, Sequence) else [found]
    found = found * 2 if len(found) == 1 else found
    if len(found) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in found):
        raise must_be(owner, "size", "SIDE or HEIGHTxWIDTH, such as 224 or 224x192", given)
    return found[0], found[1]
