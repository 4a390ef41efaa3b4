"""JPEG compression in front of a network, as one would write it."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

import unfooled as uf


def squeezed(image, quality):
    """One grey image (1, H, W), saved as JPEG and read again."""
    file = io.BytesIO()
    pixels = (image[0] * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file), dtype=np.float32) / 255)[None]


class Jpeg(nn.Module):
    """The pixels leave torch, so no gradient comes back."""

    def forward(self, images):
        return torch.stack([squeezed(image, quality=25) for image in images.detach()])


def make():
    return nn.Sequential(Jpeg(), uf.models.load("fashion-mnist/plain")).eval()
