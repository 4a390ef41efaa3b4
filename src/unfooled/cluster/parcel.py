"""A question on its way to a worker: everything in one piece, the user's own code included.

Ray runs code by nature, on the user's own machines, so the question travels as a pickle (by Ray's copy of cloudpickle).
Modules of Python that are installed nowhere, such as the file that a model's factory stands in, travel with it: a worker
needs the same packages, and no file. Images go with each shard; where they can be read on the worker too, only their
numbers do.
"""

from __future__ import annotations

import io
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..board import Question
from ..data.lazy import Fitted, Held, Lazy, as_floats
from ..errors import ModelError, UnfooledError
from ..inputs import Notes, Streamed, checked_images

ENDPOINT = f"{__package__.partition('.')[0]}.models.endpoint"
CHUNK = 8  # images that are looked at at a time
SMALL = 256 << 20  # bytes of a source that a worker is sent, to read images by itself


@dataclass(frozen=True)
class Settings:
    """What torch does otherwise by default, which a model may rely on."""

    dtype: torch.dtype
    precision: str
    deterministic: bool

    @classmethod
    def here(cls) -> Settings:
        """Those of this process."""
        exact = torch.are_deterministic_algorithms_enabled()
        return cls(torch.get_default_dtype(), torch.get_float32_matmul_precision(), exact)

    def use(self) -> None:
        """Have them in this process."""
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.precision)
        torch.use_deterministic_algorithms(self.deterministic)


@dataclass(frozen=True, eq=False)
class Part:
    """The examples of a shard, on their way to a worker: `index` (M,) says which they are.

    rows:    (M,) where a worker that reads finds them in the source; or
    images:  (M, *shape) floats, or bytes that are 255 times as much; an array, which Ray hands on without a copy.
    """

    index: Tensor
    labels: Tensor
    names: Tensor
    rows: Tensor | None
    images: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Parcel:
    """What a worker gets once: the question without its examples.

    source:   where a worker may read images by itself; None: they are sent to it.
    sample:   an image as it is read where the run began, as a `Part`.
    modules:  every module in it, to be moved to the worker's device.
    """

    question: Question
    source: Streamed | None
    sample: Part
    settings: Settings
    modules: list[nn.Module]

    def read(self, part: Part) -> Tensor:
        """The images (M, *shape) of a part. Raises `DataError`."""
        if part.images is not None:
            images = shared(part.images)
            return as_floats(images, torch.float32) if images.dtype == torch.uint8 else images
        assert self.source is not None
        assert part.rows is not None
        found = replace(self.source.images, rows=part.rows)[:]
        return checked_images(found, self.source.threat, self.source.wanted, Notes(), part.index)

    def of(self, part: Part) -> Question:
        """The question about the examples of a part."""
        return replace(self.question, images=self.read(part), labels=part.labels, names=part.names)


def readable(question: Question) -> Streamed | None:
    """The question's images where a worker may read them by itself: if they lie in files, not in memory."""
    images = question.images
    if not isinstance(images, Streamed) or _in_memory(images.images):
        return None
    bare = Streamed(replace(images.images, rows=images.images.rows[:1]), images.threat, images.wanted, Notes())
    try:
        return bare if len(_dumped(bare)) <= SMALL else None
    except Exception:  # whatever a source that cannot be pickled raises
        return None


def _in_memory(images: Lazy) -> bool:
    source = images.source
    return _in_memory(source.inner) if isinstance(source, Fitted) else isinstance(source, Held)


def part_of(question: Question, index: Tensor, read: bool) -> Part:
    """The examples of these indices (M,).

    read:  whether the worker reads their images by itself.
    """
    rows = question.images.images.rows[index] if read and isinstance(question.images, Streamed) else None
    images = compact(question.images[index]).numpy() if rows is None else None
    return Part(index, question.labels[index], question.names[index], rows, images)


def compact(images: Tensor) -> Tensor:
    """Images as bytes where these say the same: a quarter of the way."""
    images = images.cpu()
    if images.dtype != torch.float32 or not len(images):
        return images
    levels = torch.empty(images.shape, dtype=torch.uint8)
    for some, those in zip(images.split(CHUNK), levels.split(CHUNK), strict=True):  # what stays in the cache is fast
        those.copy_((some * 255).round_().clamp_(0, 255))
        if not torch.equal(as_floats(those, torch.float32), some):
            return images
    return levels


def shared(array: np.ndarray) -> Tensor:
    """A tensor on the memory of an array that may not be written to, as Ray's are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def packed(question: Question, source: Streamed | None, machines: int = 1) -> bytes:
    """A question as bytes, for so many machines.

    Raises `ModelError` where its model, or a surrogate, cannot be pickled, or is for one machine alone.
    """
    none = torch.empty(0, dtype=torch.int64)
    bare = replace(question, images=torch.empty(0), labels=none, names=none)
    modules: list[nn.Module] = []
    parcel = Parcel(bare, source, part_of(question, torch.tensor([0]), False), Settings.here(), modules)
    try:
        return _dumped(parcel, modules, machines)
    except UnfooledError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"The model cannot be sent to other machines: {reason}. It must be one that can be pickled: make what belongs to "
            "one process alone, such as open files, sockets and locks, when it is first called."
        ) from error


def unpacked(data: bytes, device: torch.device | None = None) -> Parcel:
    """What was packed; its modules that are on the CPU go to a device, if one is given."""
    parcel: Parcel = cloudpickle().loads(data)
    for module in parcel.modules if device is not None else ():
        module.to(device)
    return parcel


def cloudpickle() -> Any:
    """Ray's copy of it: what Ray itself pickles with."""
    from ray import cloudpickle as found

    return found


# --- pickling ------------------------------------------------------------------------------------------


def _dumped(item: Any, modules: list[nn.Module] | None = None, machines: int = 1) -> bytes:
    """Bytes of anything. Modules of torch that are met on the way are put into the list, which may be part of the item."""
    pickling = cloudpickle()
    shipped: set[ModuleType] = set()

    class Pickler(pickling.CloudPickler):  # type: ignore[misc, name-defined]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, nn.Module) and modules is not None:
                modules.append(obj)
            if machines > 1 and type(obj).__module__.startswith(ENDPOINT):
                raise ModelError(
                    "The budget, the rate and the answers of an endpoint are kept in a file of this machine, and the cluster "
                    "has others. Evaluate it on this machine alone."
                )
            if isinstance(obj, torch.jit.ScriptModule | torch.jit.ScriptFunction):
                return _scripted, (_saved(obj),)
            module = obj if isinstance(obj, ModuleType) else None
            if isinstance(obj, type | FunctionType):
                module = sys.modules.get(getattr(obj, "__module__", None) or "")
            if module is not None and module not in shipped and _own(module):
                pickling.register_pickle_by_value(module)
                shipped.add(module)
            return super().reducer_override(obj)

    file = io.BytesIO()
    try:
        Pickler(file, protocol=5).dump(item)
    finally:
        for module in shipped:
            pickling.unregister_pickle_by_value(module)
    return file.getvalue()


def _own(module: ModuleType) -> bool:
    """Whether a module is the user's own: a file that is installed nowhere."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__ == "__main__":  # which travels anyway
        return False
    path = Path(file).resolve()
    return path.suffix == ".py" and not any(path.is_relative_to(place) for place in _places())


def _places() -> list[Path]:
    """Where packages are installed; and this one, wherever it is."""
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = [*named, *site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parent.parent)]
    return [Path(place).resolve() for place in found]


def _saved(module: Any) -> bytes:
    """A program of TorchScript, which pickle knows nothing of."""
    file = io.BytesIO()
    with _no_warnings():
        torch.jit.save(module, file)
    return file.getvalue()


def _scripted(data: bytes) -> Any:
    with _no_warnings():
        return torch.jit.load(io.BytesIO(data))


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
        yield
