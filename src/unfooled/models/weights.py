"""Weights on disk: safetensors, or a state dict that `torch.load` reads with `weights_only`. Never a pickle of code."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import MissingData, ModelError
from ..files import whole


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name."""
    if not path.is_file():
        raise MissingData(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's training keeps its arguments beside them
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
    for key in ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model"):  # averaged weights first
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{path} holds no state dict (a mapping from names to tensors).")
    return {str(name).removeprefix("module.").removeprefix("_orig_mod."): value for name, value in found.items()}


def apply(module: nn.Module, path: Path) -> nn.Module:
    """Load a file's weights into a module, in the module's own dtype; every tensor must have its place."""
    return fit(module, read(path), path)


def fit(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The same of weights that were read from `path`, and perhaps renamed."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelError(f"The weights in {path} do not fit {type(module).__name__}: {' '.join(lines)[:300]}") from None
    return module


def save(module: nn.Module, path: Path, about: Mapping[str, str], half: bool = True) -> None:
    """Write a module's state as safetensors, floats rounded to float16 if `half`, with `about` as metadata.

    All of it or nothing is written. Raises `OutputError`.
    """
    state = {
        name: value.detach().cpu().to(torch.float16 if half and value.is_floating_point() else value.dtype).contiguous()
        for name, value in module.state_dict().items()
    }
    with whole(path) as temporary:
        save_file(state, temporary, metadata=dict(about))
