"""torchvision, which timm, transformers and onnx2torch import: also where its wheel was built for another torch."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import warnings
from types import ModuleType
from typing import Any

import torch

from ..errors import MissingExtra

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_defined: list[Any] = []  # what defines an operator must live as long as it


def torchvision() -> ModuleType | None:
    """torchvision, imported; None where it is not installed.

    Its Python part registers something for each of its compiled operators, and fails to import where these were compiled
    for another torch and could not be loaded. No image classifier needs them, only detectors do, so what is missing is
    declared, without an implementation. Call this before importing anything that imports torchvision.

    Raises `MissingExtra` where it cannot be imported all the same.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    tried: set[str] = set()
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of compiled parts that we do not use
                return importlib.import_module("torchvision")
        except (RuntimeError, ImportError, OSError) as error:
            missing = _MISSING.search(str(error))
            _forget()
            if missing is None or missing[1] in tried:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise MissingExtra(
                    f"torchvision is installed, but cannot be imported beside torch {torch.__version__}: "
                    f"{reason.rstrip('.')}. Install the torchvision that was released with it."
                ) from error
            tried.add(missing[1])
            _declare(missing[1])


def _declare(name: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{name}(Tensor x) -> Tensor")
    _defined.append(library)


def _forget() -> None:
    """Drop the modules of an import that broke off: a second one would find them half made."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
