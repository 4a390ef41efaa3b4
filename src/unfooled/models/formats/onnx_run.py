"""An ONNX graph as onnxruntime answers it, and as onnx2torch writes it in PyTorch, held against the former."""

from __future__ import annotations

import warnings
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from ...errors import ModelError
from ..classifier import logits_of
from ..vision import torchvision
from .fixed import in_pieces
from .onnx_graph import FLOATS, INTEGERS, Port, line, operators, opset, renamed
from .onnx_lower import lowered

ROWS = 256  # images on which the two are compared: those that the checks before an evaluation look at
SPREAD = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 5e-2}  # of the logits' mean distance from their mean
SIZE = {
    torch.float32: 1e-5,
    torch.float64: 1e-5,
    torch.float16: 1e-2,
}  # of the largest logit: a hundred roundings or so
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Runtime(nn.Module):
    """What onnxruntime answers: no gradients. Its session is made when it is first asked, and never copied or pickled."""

    def __init__(self, model: onnx.ModelProto, entry: Port) -> None:
        super().__init__()
        self._bytes = model.SerializeToString()
        self._name, self._output = entry.name, model.graph.output[0].name
        self.whole = entry.kind in INTEGERS  # the input counts from 0 to 255
        self.dtype: torch.dtype = getattr(torch, (FLOATS | INTEGERS)[entry.kind])
        self.batch: int | None = None  # of which size every batch must be
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def forward(self, images: Tensor) -> Tensor:
        """Answers to images (N, *shape) as the network takes them; whole numbers are rounded from 255 times the images."""
        self._session = self._session or session(self._bytes)
        given = (images.detach() * 255).round().clamp(0, 255) if self.whole else images.detach()
        return in_pieces(self._answer, given.to("cpu", self.dtype), self.batch).to(images.device)

    def _answer(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self._session.run([self._output], {self._name: images.contiguous().numpy()})[0])


def session(model: bytes) -> Any:
    """Of onnxruntime, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it would print what it raises as well
    options.intra_op_num_threads = torch.get_num_threads()
    have = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(model, options, providers=[p for p in PROVIDERS if p in have])
    except Exception as error:  # its errors have no class in common
        raise ModelError(f"onnxruntime {onnxruntime.__version__} cannot open the file: {line(error)}") from None


class Converted(nn.Module):
    """A network that onnx2torch made, compared with onnxruntime on the first images that it sees.

    They agree where their logits differ by at most a thousandth of the logits' spread, which is a tenth of what the checks
    before an evaluation hold to be unstable arithmetic, and some hundred roundings of the largest. Two implementations
    of the same network differ by a few roundings a layer; a wrong operator changes logits by about their spread.

    Raises `ModelError` where they do not agree.
    """

    def __init__(self, network: nn.Module, reference: Runtime, source: str) -> None:
        super().__init__()
        self.network = network
        self.dtype, self.source = reference.dtype, source
        self._held = _dtype(network)  # float64 afterwards, if somebody widens the network
        self.left = ROWS
        self._reference = (reference,)  # no part of the network: nothing should look for layers in it

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images as the network takes them."""
        images = images.to(self.dtype if _dtype(self.network) == self._held else torch.float64)
        answer = logits_of(self.network(images), len(images))
        if self.left > 0 and _real(images, answer, self.dtype):
            self.left -= len(images)
            with torch.no_grad():
                self._compare(answer.detach(), logits_of(self._reference[0](images), len(images)))
        return answer

    def raw(self, images: Tensor) -> Tensor:
        """The labels (N,) that onnxruntime answers."""
        return logits_of(self._reference[0](images), len(images)).argmax(1)

    def _compare(self, found: Tensor, expected: Tensor) -> None:
        if found.shape != expected.shape:
            raise ModelError(
                f"{self.source} as converted by onnx2torch answers logits of shape {tuple(found.shape)}, onnxruntime of "
                f"shape {tuple(expected.shape)}. {CURE}"
            )
        broken = ~torch.isfinite(expected)
        if bool(broken.any()) and bool((broken == ~torch.isfinite(found)).all()):
            found, expected = found.masked_fill(broken, 0), expected.masked_fill(broken, 0)
        apart = float((found - expected).abs().max())
        spread = float((expected - expected.mean(1, keepdim=True)).abs().mean())
        allowed = SPREAD[self.dtype] * spread + SIZE[self.dtype] * float(expected.abs().max())
        if not apart <= allowed:
            raise ModelError(
                f"{self.source} as converted by onnx2torch is another network than onnxruntime runs: on the same images "
                f"their logits differ by up to {apart:.3g}, where rounding explains {allowed:.2g}. {CURE}"
            )


CURE = "Take it as a black box: --model-option access=scores (in Python access='scores')."


def _dtype(network: nn.Module) -> torch.dtype | None:
    """Of the first weight of floats."""
    return next((t.dtype for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()), None)


def _real(images: Tensor, answer: Tensor, dtype: torch.dtype) -> bool:
    """Whether these are numbers to compare: not traced, not under transforms, not in another precision."""
    if torch.compiler.is_compiling() or len(images) == 0 or type(images) not in (Tensor, nn.Parameter):
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(images)
    return not wrapped and images.dtype == answer.dtype == dtype and images.device.type != "meta"


class Unconvertible(Exception):
    """onnx2torch cannot write the graph; the text says why."""


def convert(model: onnx.ModelProto) -> nn.Module:
    """The graph as a module. Raises `Unconvertible`, `MissingExtra`."""
    torchvision()  # which onnx2torch imports
    warnings.filterwarnings("ignore", module=r"onnx2torch\.")  # of how it indexes: what comes out is compared
    import onnx2torch
    from onnx2torch.node_converters.registry import get_converter

    graph = renamed(lowered(model))
    unknown = []
    for node in graph.graph.node:
        version = next((o.version for o in graph.opset_import if o.domain == node.domain), opset(graph))
        try:
            get_converter(operation_type=node.op_type, version=version, domain=node.domain)
        except NotImplementedError:
            unknown.append(node)
    if unknown:
        raise Unconvertible(f"onnx2torch does not know {operators(unknown)}")
    try:
        network: nn.Module = onnx2torch.convert(graph).eval()
    except Exception as error:  # NotImplementedError of an option, KeyError of what should be constant, and others
        raise Unconvertible(f"onnx2torch failed: {line(error).rstrip('.')}") from None
    return network
