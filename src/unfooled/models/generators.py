"""Random generators that a model carries itself."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import torch
from torch import nn

Generator = torch.Generator | np.random.Generator | random.Random


def generators(module: nn.Module) -> tuple[Generator, ...]:
    """The generators among the attributes of a module and its parts."""
    kinds = (torch.Generator, np.random.Generator, random.Random)
    return tuple(held for part in module.modules() for held in vars(part).values() if isinstance(held, kinds))


def state_of(generator: Generator) -> Any:
    """A generator's state, which can be compared and restored."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    return (
        pickle.dumps(generator.bit_generator.state)
        if isinstance(generator, np.random.Generator)
        else generator.getstate()
    )


def restore(generator: Generator, state: Any) -> None:
    """Put a state back."""
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = pickle.loads(state)
    else:
        generator.setstate(state)
