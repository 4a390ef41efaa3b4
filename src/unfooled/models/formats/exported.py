"""Programs of `torch.export` (.pt2).

Reading one is not safe. `torch.export.load` of torch 2.13 reads weights, constants and example inputs with
`torch.load(weights_only=False)` or `pickle.loads` where the file says that they are pickled, evaluates the file's symbolic
sizes with sympy, opens compiled libraries that lie in it, and writes Python from names in it. Each of these runs code of
whoever made the file. So it takes `allow_code`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import MissingData, ModelError, ParameterError
from ..classifier import Model
from ..facts import Facts
from . import refuse_code
from .fixed import FixedBatch, freed
from .stated import Stated


def load(
    spec: str, weights: Path | None, allow_code: bool, *, mean: Any = None, std: Any = None, size: Any = None,
    scale: float = 1, bgr: bool = False,
) -> Model:  # fmt: skip
    """The network of an exported program; it has no train mode.

    mean, std, size, scale, bgr:  what was done to images before the network, which the file does not say: see `Stated`.

    A program for batches of one size is run in pieces of that size where it has to be. Raises `MissingData`, `ModelError`,
    `ParameterError`.
    """
    if weights is not None:
        raise ParameterError("An exported program holds its weights: leave --weights out.")
    path, stated = Path(spec), Stated.read("an exported program", mean, std, size, scale, bgr)
    if not path.is_file():
        raise MissingData(f"There is no exported program {path}.")
    refuse_code(f"{path} is a program of torch.export", allow_code)
    program, network = _opened(path)
    (batch, *sides), pieces = _shape(program, path), ""
    fixed = None if None in sides else tuple(side for side in sides if side is not None)
    if batch is not None:
        network = _of_any_batch(network, batch, fixed, path)
        pieces = ", in pieces" if isinstance(network, FixedBatch) else ""
    facts = Facts(format=f"torch.export program{pieces}", source=str(path), size=fixed)
    return stated.applied(network, facts, sides[0] if len(sides) == 3 else None)


def _opened(path: Path) -> tuple[torch.export.ExportedProgram, nn.Module]:
    try:
        with _quiet():
            program = torch.export.load(path)
            return program, program.module(check_guards=False)
    except Exception as error:  # of zip files, of JSON, of its own schema, of operators that are not there
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{path} is no program of torch.export that torch {torch.__version__} can read: {reason[:300]}"
        ) from None


def _of_any_batch(network: nn.Module, batch: int, shape: tuple[int, ...] | None, path: Path) -> nn.Module:
    if shape is None:
        raise ModelError(
            f"{path} takes batches of {batch} images of any size. Export it for batches of any size: dynamic_shapes with "
            "torch.export.Dim."
        )
    for key, hook in list(network._forward_pre_hooks.items()):
        if getattr(hook, "__name__", "") == "_check_input_constraints_pre_hook":  # it insists on the batch size
            del network._forward_pre_hooks[key]
    try:
        return freed(network, batch, shape)
    except Exception as error:  # whatever the program raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{path} fails on {batch} images of shape {shape}: {reason[:300]}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs what it then raises."""
    log = logging.getLogger("torch.export")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _shape(program: Any, path: Path) -> tuple[int | None, ...]:
    """The shape (N, *shape) of the only input; None: any length."""
    names = program.graph_signature.user_inputs
    found = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(found) != 1 or not isinstance(found[0], torch.Tensor):
        raise ModelError(f"{path} must have one input, the images. It has {len(names)}.")
    return tuple(side if isinstance(side, int) else None for side in found[0].shape)
