"""What is known of the MedMNIST sets, whose files hold no class names.

Source: Yang et al. 2023, "MedMNIST v2", doi:10.1038/s41597-022-01721-8; https://medmnist.com.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

CLASSES: Mapping[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
        "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": tuple(f"grade {grade}" for grade in range(5)),
    "breastmnist": ("malignant", "normal or benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil", "platelet",
    ),
    "tissuemnist": (
        "collecting duct, connecting tubule", "distal convoluted tubule", "glomerular endothelial cells",
        "interstitial endothelial cells", "leukocytes", "podocytes", "proximal tubule segments", "thick ascending limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}  # fmt: skip


def classes_of(path: Path, labels: int) -> tuple[str, ...]:
    """The class names of a file named as the set is, also with a size (``pneumoniamnist_224.npz``); () for any other.

    labels:  one more than the largest label; a file with more classes than the set is another.
    """
    names = CLASSES.get(re.sub(r"_\d+$", "", path.stem.lower()), ())
    return names if labels <= len(names) else ()
