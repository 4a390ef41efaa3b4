"""This package's attacks under the names that the peers' have in `peers.PEERS`, with the same settings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import unfooled as uf
from unfooled.attacks import ATTACKS, Plan, parse
from unfooled.threats import THREATS

from .peers import PGD_STEP, TARGETS, family, minimal, norm_of

TEXTS = {  # {n}: the steps
    "fgsm": "fgsm",
    "bim": f"bim:steps={{n}},step_size={PGD_STEP}",
    "pgd": f"pgd:steps={{n}},step_size={PGD_STEP}",
    "mi-fgsm": "mi-fgsm:steps={n}",
    "apgd-ce": "apgd:steps={n}",
    "apgd-ce-l1": "apgd-l1:steps={n}",
    "apgd-dlr": "apgd:steps={n},loss=dlr",
    "apgd-t": f"targeted:k={TARGETS}(apgd:steps={{n}},loss=dlr)",
    "apgd-t5": "targeted:k=5(apgd:steps={n},loss=dlr)",
    "apgd-t5-l1": "targeted:k=5(apgd-l1:steps={n},loss=dlr)",
    "apgd-t-l1": "targeted:k=5(apgd-l1:steps={n},loss=dlr)",
    "fab": "fab:steps={n}",
    "fab-t": f"targeted:k={TARGETS}(fab:steps={{n}})",
    "square": "square:steps={n}",
    "deepfool": "deepfool:steps={n}",
    "superdeepfool": "superdeepfool:steps={n}",
    "cw": "cw:steps={n}",
    "ddn": "ddn:steps={n}",
    "fmn": "fmn:steps={n}",
    "sigma-zero": "sigma-zero:steps={n}",
    "pdpgd": "pdpgd:steps={n}",
    "hopskipjump": "hopskipjump:steps={n}",
}


def text_of(attack: str) -> str:
    """The template of an attack's text."""
    return TEXTS.get(attack) or TEXTS[family(attack)]


def registered(attack: str) -> str | None:
    """The registered attack behind a name, or None where there is none for this norm (yet)."""
    if attack not in TEXTS and family(attack) not in TEXTS:
        return None
    name = text_of(attack).rpartition("(")[2].partition(":")[0].rstrip(")")
    return name if name in ATTACKS and THREATS[norm_of(attack)] in ATTACKS[name].norms else None


def plan(attack: str, steps: int) -> Plan:
    """The plan behind a name."""
    return parse(text_of(attack).format(n=steps))


def run(
    attack: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | None,
    steps: int,
    batch: int | None = None,
    seed: int = 0,
    early_stop: bool = True,
) -> Tensor:
    """Adversarial images, as from a `libraries.Peer`."""
    threat = THREATS[norm_of(attack)](torch.inf if eps is None else eps)
    found = uf.attack(model, x, y, threat, plan(attack, steps), batch_size=batch, seed=seed, early_stop=early_stop)
    return found.adversarial


__all__ = ["TEXTS", "minimal", "plan", "registered", "run", "text_of"]
