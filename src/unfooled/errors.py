"""What can go wrong, as a tree.

    UnfooledError                 anything this package raises on purpose
    ├── ParameterError            an argument or option is not what it must be        (also a ValueError)
    │   └── UnknownName           a name that nothing answers to; says the nearest    (also a LookupError)
    ├── DataError                 images or labels are not usable, and which
    │   └── MissingData           a data set or file is not there; says where it was sought
    ├── ModelError                the model fails, or answers what no classifier may
    │   └── NotFinite             its logits or gradients are NaN or inf, and on which examples
    ├── OutputError               a result cannot be written
    ├── ClusterError              machines cannot be had, or are lost again and again
    ├── MissingExtra              an optional part is not installed; says the pip line (also an ImportError)
    └── InternalError             a promise of this package was broken: please report it

`exit_status` is what the command line ends with (the sysexits numbers, all of them 64 or above).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnfooledError(Exception):
    """Anything this package raises on purpose. Its text is one line: what was wrong, what would be right."""

    exit_status = 70


class ParameterError(UnfooledError, ValueError):
    """An argument or option is not what it must be."""

    exit_status = 64


class UnknownName(ParameterError, LookupError):
    """A name that nothing answers to."""


class DataError(UnfooledError):
    """Images or labels are not usable."""

    exit_status = 65


class MissingData(DataError):
    """A data set or file is not there."""

    exit_status = 66


class ModelError(UnfooledError):
    """The model fails, or answers what no classifier may."""

    exit_status = 65


class NotFinite(ModelError):
    """A model's logits or gradients are NaN or inf on some examples.

    examples:   what they are called.
    gradients:  whether it is the gradients (the logits are finite).
    """

    def __init__(self, message: str, examples: tuple[int, ...] = (), gradients: bool = False) -> None:
        super().__init__(message)
        self.examples = examples
        self.gradients = gradients


class OutputError(UnfooledError):
    """A result cannot be written."""

    exit_status = 73


class ClusterError(UnfooledError):
    """Machines that work is to be done on cannot be had, or are lost again and again."""

    exit_status = 69


class MissingExtra(UnfooledError, ImportError):
    """An optional part of the package is not installed."""

    exit_status = 69


class InternalError(UnfooledError):
    """A promise of this package was broken."""

    exit_status = 70


def must_be(owner: str, name: str, what: str, got: object) -> ParameterError:
    """The one form of parameter error: ``The 'eps' parameter of Linf must be a float > 0. Got -1 instead.``"""
    return ParameterError(f"The '{name}' parameter of {owner} must be {what}. Got {got!r} instead.")


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """An `UnknownName` that says the nearest right one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
    return UnknownName(f"There is no {kind} named {name!r}. {hint}")


class Note(UserWarning):
    """Something was converted or is doubtful; the run goes on. Also listed in the result's ``notes``."""
