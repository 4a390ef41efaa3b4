#: slow
#: fixtures photos net.py net.safetensors
# --- hidden-model ---
import torch

import unfooled as uf

model = uf.models.load("net.py:make", "net.safetensors")
photos = uf.data.load("photos")
images, labels = photos.whole(), photos.labels

# --- tensors ---
verdict = uf.evaluate(model, (images, labels), "linf:4/255", "quick")  # images (N, C, H, W) in [0, 1], labels (N,)


# --- torch ---
class Photos(torch.utils.data.Dataset):
    """Or one of torchvision's, or a DataLoader of it."""

    def __len__(self):
        return len(labels)

    def __getitem__(self, index):
        return images[index], int(labels[index])


verdict = uf.evaluate(model, Photos(), "linf:4/255", "quick")
