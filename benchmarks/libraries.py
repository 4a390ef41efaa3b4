"""The peers' libraries behind one face, for benchmarks and reference tests. They are test dependencies only.

A `Peer` is a function (model, images, labels, eps, steps, batch_size, seed) to adversarial images. eps is None for a
minimum-norm attack. `steps` are gradient steps of one trial (queries for Square and HopSkipJump). What a peer says of
its own success is not listened to: see `common.judge`. Libraries are imported when they are first called; one that
cannot be imported raises `Missing` with the reason. Which attacks there are: `peers.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import random
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Peer = Callable[[nn.Module, Tensor, Tensor, float | None, int, int, int], Tensor]


class Missing(Exception):
    """A peer cannot be imported; says why."""


@dataclass(frozen=True)
class Call:
    """What a peer's attack is made from. `model` is what the peer wants to see: its own wrapper for foolbox and ART."""

    model: Any
    eps: Any
    steps: int
    batch_size: int
    seed: int


# --- importing ---------------------------------------------------------------------------------------


class _Anything(types.ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def _stubs(*names: str) -> Iterator[None]:
    """Stand-ins for modules that are imported but not needed, taken away again afterwards."""
    added = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _Anything(name) for name in added})
    try:
        yield
    finally:
        for name in added:
            sys.modules.pop(name, None)


def imported(name: str) -> Any:
    """A module of a peer, or `Missing`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not name.startswith("adv_lib"):
                return importlib.import_module(name)
            with _stubs("torchvision", "torchvision.models", "visdom"):
                return importlib.import_module(name)
    except Exception as error:  # a peer may fail in any way while it is imported
        raise Missing(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


MODULES = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "art.attacks.evasion",
    "adv-lib": "adv_lib.attacks",
    "pyautoattack": "pyautoattack",
}


def check(peer: str) -> None:
    """Raise `Missing` unless the peer can be imported."""
    imported(MODULES[peer])


# --- running -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet(seed: int) -> Iterator[None]:
    """Seed all generators that a peer may use, give the caller's back afterwards, and keep peers from talking."""
    others = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])


def _in_batches(run: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return torch.cat([run(x.clone(), y.clone()).detach() for x, y in parts])


def foolbox(make: Callable[[Any, Call], Any]) -> Peer:
    """An attack of foolbox, called as its documentation does; of its three answers the clipped points are taken."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        fb, attacks = imported("foolbox"), imported("foolbox.attacks")
        wrapped = fb.PyTorchModel(model, bounds=(0, 1), device="cpu")
        attack = make(attacks, Call(wrapped, eps, steps, batch, seed))

        def one(a: Tensor, b: Tensor) -> Tensor:
            return attack(wrapped, a, fb.criteria.Misclassification(b), epsilons=eps)[1]

        with quiet(seed):
            return _in_batches(one, x, y, batch)

    return run


def torchattacks(make: Callable[[Any, Call], Any]) -> Peer:
    """An attack of torchattacks."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        ta = imported("torchattacks")
        with quiet(seed):
            return _in_batches(make(ta, Call(model, eps, steps, batch, seed)), x, y, batch)

    return run


class _Plain(nn.Module):
    """A model for ART, which takes an `nn.Sequential` apart (past its hooks) and hands on NumPy's float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.float())


def art(make: Callable[[Any, Call], Any]) -> Peer:
    """An attack of the Adversarial Robustness Toolbox, which batches by itself and works on NumPy arrays."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        attacks, estimators = imported("art.attacks.evasion"), imported("art.estimators.classification")
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        with quiet(seed):
            wrapped = estimators.PyTorchClassifier(
                _Plain(model).eval(), nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0.0, 1.0),
                device_type="cpu",
            )  # fmt: skip
            attack = make(attacks, Call(wrapped, eps, steps, batch, seed))
            return torch.from_numpy(attack.generate(x=x.numpy(), y=y.numpy())).to(x.dtype)

    return run


def adv_lib(attack: Callable[[Any, Call, Tensor, Tensor], Tensor]) -> Peer:
    """An attack of adv-lib, which are functions of whole batches."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        attacks = imported("adv_lib.attacks")
        call = Call(model, eps, steps, batch, seed)
        with quiet(seed):
            return _in_batches(lambda a, b: attack(attacks, call, a, b), x, y, batch)

    return run


def pyautoattack(module: str, make: Callable[[Any, Call], Any]) -> Peer:
    """A part of the official AutoAttack, repackaged."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        attack = make(imported(f"pyautoattack.{module}"), Call(model, eps, steps, batch, seed))
        with quiet(seed):
            return _in_batches(attack.perturb, x, y, batch)

    return run


def where_right(peer: Peer) -> Peer:
    """The peer on the images that the model gets right only, as it fails or never ends on the others."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        with torch.no_grad():
            right = torch.cat([model(part).argmax(1) for part in x.split(batch)]) == y
        z = x.clone()
        if bool(right.any()):
            z[right] = peer(model, x[right], y[right], eps, steps, batch, seed).to(z.dtype)
        return z

    return run


def whole_autoattack(norm: str) -> Peer:
    """The official `standard` AutoAttack; `steps` do not matter."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float | None, steps: int, batch: int, seed: int) -> Tensor:
        return timed_autoattack(model, x, y, norm, eps, batch, seed)[0]

    return run


def timed_autoattack(
    model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float | None, batch: int, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """The official `standard` AutoAttack, and the seconds that its parts took."""
    seconds: dict[str, float] = {}

    def timed(part: str, perturb: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: Any, **kwargs: Any) -> Tensor:
            start = time.perf_counter()
            try:
                return perturb(*args, **kwargs)
            finally:
                seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start

        return run

    module = imported("pyautoattack")
    with quiet(seed):
        whole = module.AutoAttack(model, norm=norm.capitalize(), eps=eps, seed=seed, version="standard", device="cpu")
        names = {"apgd": "apgd-ce", "apgd_targeted": "apgd-t", "fab": "fab-t", "square": "square"}
        for name, part in names.items():
            attack = getattr(whole, name)
            attack.perturb = timed(part, attack.perturb)
        z, _ = whole.run_standard_evaluation(x, y, batch_size=batch)
    return z.detach(), seconds
