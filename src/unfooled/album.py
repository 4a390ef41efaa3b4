"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .judging import judge
from .models.classifier import Model
from .results import Picture
from .threats import Threat


class Album:
    """Collects the pictures of a report: their arrays, and what the models say of them."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.clean: list[np.ndarray] = []
        self.adversarial: list[np.ndarray] = []

    def add(
        self,
        model: Model,
        clean: Tensor,
        adversarial: Tensor,
        labels: Tensor,
        examples: Tensor,
        threat: Threat,
        attack: str,
        name: str,
    ) -> list[Picture]:
        """Add images (K, C, H, W) with what fooled `model` on them."""
        before, after = judge(model, clean, labels), judge(model, adversarial, labels)
        size = threat.size(adversarial.double() - clean.double())
        pictures = []
        for k in range(len(clean)):
            pictures.append(
                Picture(
                    row=len(self.clean),
                    example=int(examples[k]),
                    label=self._name(labels[k]),
                    clean_prediction=self._name(before.prediction[k]),
                    clean_confidence=float(before.confidence[k]),
                    adversarial_prediction=self._name(after.prediction[k]),
                    adversarial_confidence=float(after.confidence[k]),
                    threat=type(threat).__name__,
                    attack=attack,
                    size=float(size[k]),
                    model=name,
                )
            )
            self.clean.append(clean[k].float().numpy())
            self.adversarial.append(adversarial[k].float().numpy())
        return pictures

    def _name(self, index: Tensor) -> str:
        return self.classes[int(index)] if int(index) < len(self.classes) else str(int(index))

    def arrays(self) -> dict[str, np.ndarray]:
        """What `pictures.safetensors` holds."""
        return {"clean": np.stack(self.clean), "adversarial": np.stack(self.adversarial)}
