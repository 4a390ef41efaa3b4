"""TorchScript, and whatever else is saved as .pt or .pth.

A TorchScript file is a program in a language of its own: torch runs it without Python and without imports, and reads its
data with an unpickler that knows its own types only. Two of its operators write to files, `torch.save` and `from_file`;
a file that names one of them takes `allow_code`, as a pickled module does.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MissingData, ModelError, ParameterError
from ..classifier import Model
from ..facts import Facts
from . import refuse_code
from .stated import Stated

MAGIC = (b"PK", b"\x80")  # of zip archives and of pickles
WRITES = re.compile(rb"\b(save|from_file)\s*\(")


def load(
    spec: str, weights: Path | None, allow_code: bool, *, mean: Any = None, std: Any = None, size: Any = None,
    scale: float = 1, bgr: bool = False,
) -> Model:  # fmt: skip
    """The network of a TorchScript file; with `allow_code` also a module that was pickled whole.

    mean, std, size, scale, bgr:  what was done to images before the network, which the file does not say: see `Stated`.

    Raises `MissingData`, `ModelError`, `ParameterError`; of a file that holds weights only it says so.
    """
    path, stated = Path(spec), Stated.read("a file of torch", mean, std, size, scale, bgr)
    if weights is not None:
        raise ParameterError(f"{path} is given as the model, with its weights: leave --weights out.")
    if not path.is_file():
        raise MissingData(f"There is no model file {path}.")
    code = _code(path)
    if code is None:
        network, form = _pickled(path, allow_code), "PyTorch module, pickled"
    else:
        if WRITES.search(code):
            refuse_code(f"{path} is TorchScript that writes to files", allow_code)
        network, form = _scripted(path), "TorchScript"
    facts = Facts(format=form, source=str(path))
    return stated.applied(network.eval(), facts)


def _code(path: Path) -> bytes | None:
    """The code of a TorchScript file; None: it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [name for name in archive.namelist() if re.match(r"[^/]*/code/.*\.py$", name)]
            return b"\n".join(archive.read(name) for name in parts) if parts else None
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
        return None


def _scripted(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's own; the file is there all the same
            network: nn.Module = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ModelError(f"{path} is no TorchScript that torch {torch.__version__} can read: {_line(error)}.") from None
    return network


def _pickled(path: Path, allow_code: bool) -> nn.Module:
    """A module that was saved whole, after what is safe to try has been tried."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how a pickle was written
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            if not file.read(2).startswith(MAGIC):
                raise ModelError(f"{path} is no file that torch wrote: {_line(error)}.") from None
        refuse_code(f"{path} is a pickle of Python objects, as torch.save(model) writes it", allow_code)
        found = _unpickled(path)
    except Exception as error:  # of zip files, of pickles cut short, of text
        raise ModelError(f"{path} is no file that torch wrote, or is damaged: {_line(error)}.") from None
    if isinstance(found, Mapping):
        inner = next((found[key] for key in ("model", "net", "ema") if isinstance(found.get(key), nn.Module)), None)
        found = found if inner is None else inner
    if isinstance(found, nn.Module):
        return found
    if isinstance(found, Mapping) and _holds_tensors(found):
        raise ModelError(
            f"{path} holds weights, not a network: give them with --weights and name the network, such as file.py:factory."
        )
    raise ModelError(f"{path} must hold a network. It holds a {type(found).__name__}.")


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code in it raises
        raise ModelError(
            f"{path} cannot be unpickled: {_line(error)}. The classes that it names must be importable as they were."
        ) from None


def _holds_tensors(found: Mapping[Any, Any]) -> bool:
    return any(isinstance(v, Tensor) or (isinstance(v, Mapping) and _holds_tensors(v)) for v in found.values())


def _line(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return text[:300].rstrip(".")
