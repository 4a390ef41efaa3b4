"""Weights on disk: safetensors, or a state dict that `torch.load` reads with `weights_only`. Never a pickle of code."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import MissingData, ModelError
from ..files import whole

WRAPPED = re.compile(r"^((module|_orig_mod)\.)+")  # what DataParallel and torch.compile put before names, in any order

WITHIN = (  # where training keeps weights among other things; averaged ones first
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "network", "net",
)  # fmt: skip


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name."""
    if not path.is_file():
        raise MissingData(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_harmless()):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ):
        if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ModelError(
                f"{path} holds more than weights, or is damaged. Code in it is not run: save a state_dict(), as safetensors."
            ) from None
        raise ModelError(f"{path} is no weights file (safetensors, or a state dict saved by torch).") from None
    for key in WITHIN:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{path} holds no state dict (a mapping from names to tensors).")
    return {WRAPPED.sub("", str(name)): value for name, value in found.items()}


def _harmless() -> list[Any]:
    """What training keeps beside weights: arguments, as timm's does, and scores that are numbers of numpy."""
    rebuild = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")]
    names = [(rebuild, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # before numpy 2, and since
    return [argparse.Namespace, np.dtype, *kinds, *names]


def apply(module: nn.Module, path: str | Path) -> nn.Module:
    """Load a file's weights into a module, in the module's own dtype; every tensor must have its place."""
    return fit(module, read(Path(path)), Path(path))


def fit(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The same of weights that were read from `path`, and perhaps renamed.

    Where all names begin with one more word, as those of a network within a training module do, it is left out.
    """
    try:
        module.load_state_dict(_unwrapped(weights, module.state_dict()))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelError(f"The weights in {path} do not fit {type(module).__name__}: {' '.join(lines)[:300]}") from None
    return module


def _unwrapped(weights: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> Mapping[str, Tensor]:
    words = {name.partition(".")[0] for name in weights}
    bare = {name.partition(".")[2]: value for name, value in weights.items()}
    return bare if len(words) == 1 and bare.keys() == wanted.keys() else weights


def save(module: nn.Module, path: str | Path, about: Mapping[str, str], half: bool = True) -> None:
    """Write a module's state as safetensors, floats rounded to float16 if `half`, with `about` as metadata.

    All of it or nothing is written. Raises `OutputError`.
    """
    state = {
        name: value.detach().cpu().to(torch.float16 if half and value.is_floating_point() else value.dtype).contiguous()
        for name, value in module.state_dict().items()
    }
    with whole(Path(path)) as temporary:
        save_file(state, temporary, metadata=dict(about))
