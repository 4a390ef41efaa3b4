"""TorchScript, which no mode and no hook can look into: its graph is rewritten instead."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ..models.classifier import Model
from ..models.inside import modules_within
from .rewired import Part

FLAT = {"aten::round", "aten::floor", "aten::ceil", "aten::trunc", "aten::fix", "aten::detach"}


@dataclass(frozen=True)
class Unscripted(Part):
    """TorchScript modules run without what has no derivative in their graphs; the answers change by that much."""

    stand_ins: tuple[tuple[Any, Any], ...] = field(repr=False)  # each module with its own: so they can be pickled
    name: str = "TorchScript without its rounding"

    @contextmanager
    def applied(self, model: Model, images: Tensor) -> Iterator[None]:
        """Call the stand-in for a scripted module wherever the module is called."""
        call, found = torch.jit.ScriptModule.__call__, {id(module): smooth for module, smooth in self.stand_ins}

        def called(module: Any, *args: Any, **kwargs: Any) -> Any:
            return call(found.get(id(module), module), *args, **kwargs)

        with patch.object(torch.jit.ScriptModule, "__call__", called):
            yield


def unscripted(model: Model) -> Unscripted | None:
    """The part for a model; None where none of its modules is TorchScript with such a call in it."""
    stand_ins = []
    for _, module in modules_within(model):
        if isinstance(module, torch.jit.ScriptModule):
            with suppress(Exception):  # what cannot be copied or frozen is left as it is
                smooth = _without_flat(module)
                if smooth is not None:
                    stand_ins.append((module, smooth))
    return Unscripted(tuple(stand_ins)) if stand_ins else None


def _without_flat(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
        frozen: torch.jit.ScriptModule = torch.jit.freeze(copy.deepcopy(module).eval())
    torch._C._jit_pass_inline(frozen.graph)
    nodes = [node for node in frozen.graph.nodes() if node.kind() in FLAT]
    for node in nodes:
        node.output().replaceAllUsesWith(next(iter(node.inputs())))
    return frozen if nodes else None
