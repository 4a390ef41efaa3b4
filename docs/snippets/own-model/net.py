"""A network, as `unfooled` asks for it: a function without arguments that returns it."""

from torch import nn

import unfooled as uf


def make():
    """Without its weights: from images (N, 3, H, W) in [0, 1] to logits (N, 10)."""
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    return uf.models.Normalized(network, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
