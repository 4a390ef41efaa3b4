"""The largest size at which each image is proved."""

from __future__ import annotations

import torch

from unfooled.certificates.sizes import largest

SIZES = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0]


def sought(true: list[float], at_least: list[int], below: list[int]) -> tuple[list[float], list[float]]:
    """What is found where each image is provable up to `true`, and the sizes that were tried, one for each image asked."""
    tried: list[float] = []

    def proves(rows: torch.Tensor, size: float) -> torch.Tensor:
        tried.extend([size] * len(rows))
        return torch.tensor(true)[rows] >= size

    return largest(proves, SIZES, torch.tensor(at_least), torch.tensor(below)).tolist(), tried


def test_every_place_is_found():
    true = [0.1, 0.25, 0.3, 0.5, 0.9, 1.2, 1.5, 1.9, 2.0, 9.0]
    found, tried = sought(true, [-1] * 10, [len(SIZES)] * 10)
    assert found == [0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 1.5, 1.5, 2.0, 2.0]
    assert len(tried) <= 3 * 10


def test_what_is_known_is_not_tried_again():
    found, tried = sought([1.2, 1.2, 0.0], [3, -1, -1], [len(SIZES), 3, 0])
    assert found == [1.0, 0.75, 0.0]  # of the second it is said that 1.0 is not proved
    assert 1.0 not in tried
    assert len(tried) <= 4
