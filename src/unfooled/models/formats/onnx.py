"""ONNX files: with gradients where onnx2torch can write the graph in PyTorch, else as onnxruntime answers.

An ONNX file is a protobuf message: reading it runs nothing. Its nodes get names of our own before torch.fx writes Python
from them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import MissingExtra, ModelError, Note, ParameterError, must_be
from ..black_box import Answers, BlackBox
from ..classifier import Model, logits_of
from ..facts import Facts, facts_of
from .fixed import FixedBatch, freed, random_images
from .stated import Stated

if TYPE_CHECKING:
    from .onnx_graph import Port

SIDES = (224, 32, 28, 64, 256, 299)  # tried in turn where the file leaves height and width open


def load(
    spec: str, weights: Path | None, allow_code: bool, *, access: str | None = None, output: str | None = None,
    mean: Any = None, std: Any = None, size: Any = None, scale: float = 1, bgr: bool = False, last: bool | None = None,
    classes: int | None = None,
) -> Model:  # fmt: skip
    """The classifier in an ONNX file.

    access:     "scores": as a black box, through onnxruntime; "gradients": through onnx2torch, or not at all; None:
                gradients if every operator converts.
    output:     the name of the logits, where the file has several outputs; any value within the graph may be named.
    mean, std, size, scale, bgr:  what was done to images before the network, which the file does not say: see `Stated`.
    last:       whether the network takes channels last, (N, H, W, C); None: where the shape of its input says so.
    classes:    how many there are, for a file that answers labels only.

    A softmax or sigmoid at the end is left out: the model answers logits. A file for batches of one size is run in pieces
    of that size where it has to be. Raises `MissingExtra`, `MissingData`, `ModelError`, `ParameterError`.
    """
    if weights is not None:
        raise ParameterError("An ONNX file holds its weights: leave --weights out.")
    if access not in (None, "scores", "gradients"):
        raise must_be("an ONNX file", "access", "'scores' or 'gradients'", access)
    if last is not None and not isinstance(last, bool):
        raise must_be("an ONNX file", "last", "true or false", last)
    _installed(("onnx", "onnxruntime") if access == "scores" else ("onnx", "onnxruntime", "onnx2torch"))
    return _File(Path(spec), output, Stated.read("an ONNX file", mean, std, size, scale, bgr), last, classes).model(
        access
    )


def _installed(packages: tuple[str, ...]) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f'ONNX files need {", ".join(missing)}: pip install "unfooled[onnx]"')


class _File:
    """A file, its graph cut at the logits, and what was found out about it."""

    def __init__(self, path: Path, output: str | None, stated: Stated, last: bool | None, classes: int | None) -> None:
        from . import onnx_graph as graph
        from .onnx_run import Runtime

        whole = graph.read(path)
        self.path, self.stated, self.classes = path, stated, classes
        self.entry = graph.entry(whole, path)
        if self.entry.kind in graph.INTEGERS and graph.INTEGERS[self.entry.kind] not in ("uint8", "int32", "int64"):
            raise ModelError(
                f"{path} takes {graph.INTEGERS[self.entry.kind]}: what its numbers mean for pixels cannot be known."
            )
        self.onnx, self.cut = graph.ended(whole, output, path)
        self.opset = graph.opset(whole)
        self.runtime = Runtime(self.onnx, self.entry)
        self.last = _channels_last(self.entry) if last is None else last
        self.batch, self.shape, answer = self._tried()
        self.runtime.batch = self.batch
        self.labels = answer is not None and not answer.is_floating_point()
        self.probabilities = graph.one_probability(self.onnx) or (
            answer is not None and not self.labels and _probabilities(answer)
        )
        count = classes if self.labels else None if answer is None else answer[0].numel()
        names = graph.classes_of(whole)
        self.names = names if count in (None, len(names)) or (count == 1 and len(names) == 2) else ()

    def _tried(self) -> tuple[int | None, tuple[int, ...] | None, Tensor | None]:
        """The batch size that it is bound to, the shape of one image, and its answer to random ones.

        None for the shape where the file does not say it and none of a few fits: then the data will show.
        """
        from . import onnx_graph as graph

        fixed = None if self.entry.shape is None else self.entry.shape[0]
        reasons = []
        for shape in _shapes(self.entry, self.stated.size, self.last):
            for batch in [fixed] if fixed else [2, 1]:
                try:
                    answer = self.runtime(random_images(batch, shape))
                except ModelError:
                    raise
                except Exception as error:  # onnxruntime's errors have no class in common
                    reasons.append(graph.line(error))
                    continue
                self._checked(answer, batch)
                return (fixed or (None if batch == 2 else 1)), shape, answer
        if reasons and self.entry.shape is not None and None not in self.entry.shape[1:]:
            raise ModelError(f"onnxruntime cannot run {self.path}: {reasons[0]}")
        return fixed, None, None

    def _checked(self, answer: Tensor, rows: int) -> None:
        shape = tuple(answer.shape)
        right = shape[:1] == (rows,) and len(shape) in ((1, 2) if answer.is_floating_point() else (1,))
        if not right or answer.dtype == torch.bool:
            raise ModelError(
                f"{self.path} must answer logits of shape (N, classes). To {rows} images it answered {answer.dtype} of shape "
                f"{shape}. Name the right output, as output=NAME."
            )

    def model(self, access: str | None) -> Model:
        """As onnx2torch writes it, or as a black box."""
        if access != "scores":
            reason = self._obstacle()
            if not reason:
                from .onnx_run import Unconvertible

                try:
                    return self._white()
                except Unconvertible as error:
                    reason = str(error)
            if access == "gradients":
                raise ModelError(f"{self.path} gives no gradients: {reason}.")
            warnings.warn(
                f"{self.path} is taken as a black box, which gives {'labels' if self.labels else 'scores'} only: {reason}.",
                Note,
                stacklevel=5,
            )
        return self._black()

    def _obstacle(self) -> str:
        """Why there can be no gradients, before any conversion; "" if nothing is known."""
        if self.runtime.whole:
            return f"it takes {str(self.runtime.dtype).removeprefix('torch.')}, and rounding has no gradients"
        return "it answers labels" if self.labels else ""

    def _white(self) -> Model:
        """Raises `Unconvertible` also where what was converted cannot run, and `ModelError` where it is wrong."""
        from .onnx_graph import line
        from .onnx_run import Converted, Unconvertible, convert

        network = convert(self.onnx)
        if self.shape is not None:
            images = random_images(self.batch or 2, self.shape, self.runtime.dtype)
            try:
                with torch.no_grad():
                    logits_of(network(images), len(images))
            except Exception as error:
                raise Unconvertible(f"what onnx2torch made of it does not run ({line(error)[:-1]})") from None
            network = freed(network, self.batch, self.shape) if self.batch else network
        elif self.batch:
            network = FixedBatch(network, self.batch)
        found = Converted(network, self.runtime, str(self.path))
        if self.shape is not None:
            with torch.no_grad():
                found(random_images(self.batch or 2, self.shape, self.runtime.dtype))
        model = self._seen(found, f"through onnx2torch{', in pieces' if isinstance(network, FixedBatch) else ''}")
        return model.eval()

    def _black(self) -> Model:
        seen = self._seen(self.runtime, "through onnxruntime").eval()
        answers: Answers = "labels" if self.labels else "probabilities" if self.probabilities else "logits"
        if self.labels and self.classes is None and not self.names:
            raise ParameterError(f"{self.path} answers labels only. Say how many classes there are: classes=10.")
        count = (self.classes or len(self.names)) if self.labels else None
        return BlackBox(_Asked(seen), answers, count, facts=facts_of(seen)[0])

    def _seen(self, network: nn.Module, how: str) -> nn.Module:
        """With what comes before the network, and the facts."""
        if self.last:
            network = _ChannelsLast(network)
        cut = f", final {self.cut} left out" if self.cut else ""
        whole = "255 times the pixels, rounded" if self.runtime.whole else ""
        shape = self.shape
        if shape is not None and self.last:
            shape = (shape[2], shape[0], shape[1])
        open_size = self.entry.shape is None or None in self.entry.shape[1:]
        facts = Facts(
            format=f"ONNX opset {self.opset}, {how}{cut}",
            source=str(self.path),
            size=None if open_size and self.stated.size is None else shape,
            preprocessing="; ".join(filter(None, ["channels last" if self.last else "", whole])),
            classes=self.names,
        )
        channels = self.entry.shape[3 if self.last else 1] if self.entry.shape and len(self.entry.shape) == 4 else None
        return self.stated.applied(network, facts, channels or (shape[0] if shape and len(shape) == 3 else None))


class _Asked:
    """A module that is asked without gradients; a class, so that it can be pickled."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            answer: Tensor = self.module(images)
        return answer


class _ChannelsLast(nn.Module):
    """A network of (N, H, W, C) as one of (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images.permute(0, 2, 3, 1))


def _channels_last(entry: Port) -> bool:
    """Where the last dimension alone can be that of channels."""
    shape = entry.shape
    return shape is not None and len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)


def _shapes(entry: Port, size: tuple[int, int] | None, last: bool) -> Iterator[tuple[int, ...]]:
    """Shapes that one image may have for the network, the likeliest first."""
    shape = entry.shape
    if shape is None:
        return
    if None not in shape[1:]:
        yield tuple(d for d in shape[1:] if d is not None)
    elif len(shape) == 4:
        at = (1, 2) if last else (2, 3)
        channels = shape[3 if last else 1]
        for side in [size] if size else [(s, s) for s in SIDES]:
            height, width = (shape[k] or side[n] for n, k in enumerate(at))
            for count in [channels] if channels else [3, 1]:
                yield (height, width, count) if last else (count, height, width)


def _probabilities(answer: Tensor) -> bool:
    """Whether the rows are not negative and sum to one."""
    if answer.dim() < 2 or answer.shape[1] < 2:
        return False
    return bool((answer >= 0).all()) and bool(((answer.sum(1) - 1).abs() < 1e-4).all())
