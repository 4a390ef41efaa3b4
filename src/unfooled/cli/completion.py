"""What the shell completes besides commands and options: names, without an import of torch for each Tab.

They are written down here, and a test holds them to the registries. Where none fits, the shell goes on to files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from ..errors import ParameterError
from ..frameworks import ACCESS
from ..studies.registry import STUDIES

OPTIONS = ("--install-completion", "--show-completion")
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
PLANS = ("restarts:", "targeted:", "cascade(", "escalate(")
NETWORKS = ("seed-cnn", "small-cnn", "certified-cnn", "small-resnet")
NAMES: dict[str, tuple[str, ...]] = {
    "attacks": (*ACCESS, *PLANS),
    "certificates": ("auto", "ibp", "crown", "alpha-crown"),
    "data": ("mnist", "fashion-mnist", "fashion-mnist-sample", "cifar10", "gtsrb"),
    "defenses": (
        "blur", "percentile", "median", "bit-depth", "jpeg", "tv", "random-shift", "resize-pad", "noise", "thermometer",
    ),
    "models": (
        "fashion-mnist/plain", "fashion-mnist/hardened", "fashion-mnist/pgd-small", "fashion-mnist/trades-small",
        "fashion-mnist/ibp", "mnist/pgd-small", "mnist/ibp", *NETWORKS, "timm:", "hf:", "https://",
    ),
    "networks": NETWORKS,
    "protocols": ("quick", "fast", "standard", "thorough"),
    "proofs": ("auto", "ibp", "crown", "alpha-crown", "smoothing:"),
    "recipes": (
        "standard", "fast-at", "n-fgsm", "grad-align", "pgd", "pgd-10", "trades", "mart", "noise", "smooth-adv",
        "pgd-fashion-mnist", "trades-fashion-mnist", "pgd-mnist", "ibp", "crown-ibp", "sabr", "mtl-ibp",
        "ibp-fashion-mnist", "ibp-mnist", "ibp-mnist-0.1",
    ),
    "studies": tuple(STUDIES),
    "threats": ("linf:8/255", "l2:0.5", "l1:12", "l0:20"),
}  # fmt: skip


def complete(kind: str) -> Callable[[str], list[str]]:
    """For `autocompletion=`: the names of that kind that begin as the word does."""

    def fitting(incomplete: str) -> list[str]:
        return [name for name in NAMES[kind] if name.startswith(incomplete)]

    return fitting


def check(arguments: Sequence[str]) -> None:
    """Refuse what Typer passes over: a shell that is named, or one that it has no script for. Raises `ParameterError`."""
    if not arguments or arguments[0] not in OPTIONS:
        return
    cure = "_UNFOOLED_COMPLETE=source_bash unfooled prints the script of bash; source_zsh and source_fish of others"
    if len(arguments) > 1:
        raise ParameterError(
            f"{arguments[0]} is for the shell that you type it in, and takes no {arguments[1]!r}: {cure}."
        )
    shellingham = importlib.import_module("shellingham")  # Typer's
    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        name = ""
    if name not in SHELLS:
        found = f"{name} is no shell that words can be completed in" if name else "No shell is asking"
        raise ParameterError(f"{found}: {arguments[0]} is for bash, zsh, fish and PowerShell. {cure}.")
