"""What `certify` is asked for: methods that bound a network, one after the other, or randomized smoothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from .. import text
from ..errors import ParameterError, must_be, unknown
from ..threats import L1, L2, Threat
from .methods import CROWN, IBP, METHODS, AlphaCROWN, Method, parse
from .noise import Gaussian, Noise, Uniform
from .smoothing import Smoothing

Asked = tuple[Method, ...] | Smoothing

KIND = "method of certification"
CASCADE: tuple[Method, ...] = (IBP(), CROWN(), AlphaCROWN())
ABOUT = {
    "auto": "ibp, then crown, then alpha-crown, each on what those before it left open.",
    **{name: (kind.__doc__ or "").splitlines()[0] for name, kind in METHODS.items()},
    "smoothing": "Randomized smoothing: the majority under noise, of any model, for l2 and l1. Cohen et al. 2019.",
}
"""Every method by name, with what it does."""
_BEGINS = re.compile(r"\s*[A-Za-z][A-Za-z-]*\s*(:|$)")  # of a part between commas: another method, not an option


def asked(method: str | Method | Smoothing | Sequence[str | Method], threat: Threat) -> Asked:
    """Read ``auto``, ``ibp,crown``, ``alpha-crown:steps=50``, ``smoothing:sigma=0.5,draws=10000``, or what these stand for.

    Raises `ParameterError`, also where the method does not fit the threat.
    """
    alone = not isinstance(method, list | tuple)
    given: Sequence[Any] = split(method) if isinstance(method, str) else [method] if alone else method  # type: ignore
    found: list[Method | Smoothing] = []
    for one in given:
        if isinstance(one, str):
            found += _read(one, threat)
        elif isinstance(one, IBP | CROWN | AlphaCROWN | Smoothing):
            found.append(one)
        else:
            raise must_be("certify", "method", f"one or more of {', '.join(ABOUT)}", one)
    if not found:
        raise must_be("certify", "method", f"one or more of {', '.join(ABOUT)}", method)
    bounds = tuple(one for one in found if not isinstance(one, Smoothing))
    if len(bounds) == len(found):
        return bounds
    if len(found) > 1:
        raise ParameterError(
            "Smoothing certifies another classifier than bounds do, so it cannot go on with them. Give it alone."
        )
    (smoothing,) = found
    assert isinstance(smoothing, Smoothing)
    return _fitting(smoothing, threat)


def split(words: str) -> list[str]:
    """The methods of a text: those that commas separate, each with its own options."""
    parts: list[str] = []
    for part in words.split(","):
        if parts and not _BEGINS.match(part):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return [part.strip() for part in parts]


def written(wanted: Asked) -> str:
    """The text of it, as `asked` reads it back."""
    if not isinstance(wanted, Smoothing):
        return ",".join(text.write(one.name, one) for one in wanted)
    noise = text.write("smoothing", wanted.noise)
    more = text.write("", wanted).partition(":")[2].split(",")
    return ",".join([noise, *(part for part in more if part and not part.startswith("noise="))])


def _read(words: str, threat: Threat) -> list[Method | Smoothing]:
    call = text.parse(words)
    if call.name not in ABOUT:
        raise unknown(KIND, call.name, ABOUT)
    if call.inner:
        raise ParameterError(f"{words!r}: a {KIND} takes no parentheses.")
    if call.name == "auto":
        text.options(KIND, call, [])
        return list(CASCADE)
    if call.name == "smoothing":
        return [_smoothing(call, threat)]
    return [parse(words)]


def _smoothing(call: text.Call, threat: Threat) -> Smoothing:
    """Smoothing by the noise of the threat's norm; for L1 a sigma is the standard deviation too."""
    options = text.options(KIND, call, ["sigma", "half_width", "selection", "draws", "alpha"])
    sigma, half_width = options.pop("sigma", None), options.pop("half_width", None)
    _check_norm(threat)
    if (sigma is None) == (half_width is None) or (half_width is not None and isinstance(threat, L2)):
        form = "smoothing:sigma=0.25" + (" or smoothing:half_width=0.5" if isinstance(threat, L1) else "")
        raise ParameterError(
            f"Smoothing for {threat} needs the size of its noise once, in the units of the images: {form}."
        )
    noise: Noise
    if isinstance(threat, L2):
        noise = Gaussian(sigma)
    elif half_width is None:
        noise = Uniform(Gaussian(sigma).sigma * math.sqrt(3))
    else:
        noise = Uniform(half_width)
    return Smoothing(noise, **options)


def _check_norm(threat: Threat) -> None:
    if not isinstance(threat, L2 | L1):
        raise ParameterError(
            "Randomized smoothing certifies l2 (with Gaussian noise) and l1 (with uniform noise), not "
            f"{str(threat).partition(':')[0]}. Ask about one of these, or bound the network: auto, {', '.join(METHODS)}."
        )


def _fitting(smoothing: Smoothing, threat: Threat) -> Smoothing:
    _check_norm(threat)
    if not isinstance(threat, smoothing.noise.certifies):
        norm = smoothing.noise.certifies.__name__.lower()
        raise ParameterError(f"The noise {smoothing.noise} certifies {norm}. The threat is {threat}.")
    if not math.isfinite(threat.eps):
        raise ParameterError(f"Smoothing certifies a finite size. The threat is {threat}.")
    return smoothing
