"""The same, with a declared backward: what an attacker would put in its place on the way back."""

import torch
from jpeg import squeezed

import unfooled as uf


class Jpeg(uf.defenses.Defense):
    name = "jpeg"

    def __init__(self, quality=25, backward="identity"):
        super().__init__(backward)
        self.quality = quality

    def transform(self, images):
        return torch.stack([squeezed(image, self.quality) for image in images.detach()])


def make():
    return uf.defend(uf.models.load("fashion-mnist/plain"), Jpeg())
