#: slow
# --- hidden-service ---
import torch

import unfooled as uf

network = uf.models.load("fashion-mnist/plain")
data = uf.data.load("fashion-mnist-sample[0:8]")


def ask(images):
    with torch.no_grad():
        return network(torch.from_numpy(images)).argmax(1).numpy()


# --- box ---
import unfooled as uf

box = uf.models.BlackBox(ask, "labels", classes=10, arrays=True)  # ask: NumPy arrays (N, C, H, W) to N labels
verdict = uf.evaluate(box, data, uf.L2(2.0), "quick")
print(verdict.robust_accuracy.attacked, verdict.trust)

# --- surrogate ---
close = uf.models.load("fashion-mnist/hardened")  # a model of your own that resembles it
verdict = uf.evaluate(box, data, uf.L2(2.0), "quick", surrogate=close)
