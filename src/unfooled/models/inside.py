"""The modules that a model is made of: also those that a function or an object holds."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

DEEP = 3  # functions within functions


def modules_within(model: Any) -> list[tuple[str, nn.Module]]:
    """Every module of a model with its path, outer ones first; each once.

    Of a function, the modules in its closure, its defaults, and the globals that it names; of another object, those
    among its attributes.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, root in _roots(model, "", DEEP):
        for path, module in root.named_modules():
            found.setdefault(id(module), (".".join(part for part in (name, path) if part), module))
    return list(found.values())


def hookable(model: Any) -> list[tuple[str, nn.Module]]:
    """The same without those of TorchScript, which take no hooks."""
    return [(path, module) for path, module in modules_within(model) if not isinstance(module, torch.jit.ScriptModule)]


def uncompiled() -> AbstractContextManager[Any]:
    """What torch.compile has made runs as it was written, so that hooks and modes see its calls and leave no trace."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled; torch would take seconds to import it
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _roots(item: Any, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(item, nn.Module):
        yield name, item
        return
    if depth == 0:
        return
    for label, held in _held(item):
        if isinstance(held, nn.Module) or callable(held) or isinstance(held, list | tuple | dict):
            yield from _roots(held, f"{name}.{label}" if name else label, depth - 1)


def _held(item: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, by name."""
    if isinstance(item, functools.partial):
        yield "func", item.func
        yield from ((str(at), value) for at, value in enumerate(item.args))
        yield from item.keywords.items()
    elif isinstance(item, list | tuple):
        yield from ((str(at), value) for at, value in enumerate(item))
    elif isinstance(item, dict):
        yield from ((str(key), value) for key, value in item.items())
    elif inspect.ismethod(item):
        yield "self", item.__self__
    elif inspect.isfunction(item):
        bound = inspect.getclosurevars(item)
        yield from bound.nonlocals.items()
        yield from bound.globals.items()
        yield from ((str(at), value) for at, value in enumerate(item.__defaults__ or ()))
    elif hasattr(item, "__dict__") and not inspect.isclass(item) and not inspect.ismodule(item):
        yield from vars(item).items()
        if hasattr(item, "__wrapped__"):
            yield "wrapped", item.__wrapped__
