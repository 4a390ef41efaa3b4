# %% [markdown]
# # FGSM in ten minutes
#
# A picture that a network reads rightly, a change that you hardly see, and a wrong answer. Change the numbers and run
# the cells again: everything here comes with the package, and nothing takes longer than a few seconds.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

import unfooled as uf

model = uf.models.load("fashion-mnist/plain")
data = uf.data.load("fashion-mnist-sample[0:300]")
images, labels = data.floats(), data.labels  # (300, 1, 28, 28) in [0, 1], and (300,)


def shares(pictures):
    """What the network answers, as shares of the classes."""
    with torch.no_grad():
        return model(pictures).softmax(1)


def show(pictures, captions):
    """Pictures in a row."""
    _, places = plt.subplots(1, len(pictures), figsize=(2.3 * len(pictures), 2.6))
    for place, picture, caption in zip(places, pictures, captions, strict=True):
        place.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
        place.set_title(caption, fontsize=9)
        place.axis("off")
    plt.show()


def says(picture):
    """The answer to one picture, in words."""
    found = shares(picture[None])[0]
    return f"{data.classes[int(found.argmax())]}, {100 * found.max():.0f} %"


# %% [markdown]
# ## The formula
#
# $x' = x + \varepsilon \cdot \mathrm{sign}(\nabla_x J(\theta, x, y))$
#
# $J$ says how wrong the network is on the picture $x$ whose class is $y$. Its gradient says of every pixel how that
# changes when the pixel does. FGSM moves each pixel by $\varepsilon$, up or down, whichever makes the network more
# wrong. Goodfellow et al. 2015, arXiv:1412.6572.

# %%
which, eps = 84, 0.1

x = images[which : which + 1].clone().requires_grad_()
loss = cross_entropy(model(x), labels[which : which + 1])
(gradient,) = torch.autograd.grad(loss, x)
adversarial = (x + eps * gradient.sign()).clamp(0, 1).detach()

show(
    [images[which], 0.5 + 0.5 * gradient[0].sign(), adversarial[0]],
    [says(images[which]), "the sign of the gradient", says(adversarial[0])],
)

# %% [markdown]
# ## More and more of it
#
# It is not the amount of noise that does it, but its direction: below, the same amount with signs drawn at random.

# %%
steps = [0.0, 0.02, 0.05, 0.1, 0.2]
noise = torch.randint(0, 2, x.shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1

along = [(images[which] + e * gradient[0].sign()).clamp(0, 1) for e in steps]
random = [(images[which] + e * noise).clamp(0, 1) for e in steps]
show(along, [f"ε {e:g}: {says(picture)}" for e, picture in zip(steps, along, strict=True)])
show(random, [f"random {e:g}: {says(picture)}" for e, picture in zip(steps, random, strict=True)])

# %% [markdown]
# ## Accuracy against epsilon
#
# One attack at one epsilon after the other. PGD is FGSM in twenty small steps: it follows the loss as it bends, and
# leaves less. Both curves are upper bounds of what the network keeps; a stronger attack may leave less still.

# %%
grid = [0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15]
fgsm = uf.sweep(model, images, labels, "linf:0.1", grid, "fgsm")
pgd = uf.sweep(model, images, labels, "linf:0.1", grid, "pgd:steps=20,step_size=0.1")

for name, found in (("FGSM", fgsm), ("PGD, 20 steps", pgd)):
    plt.plot(grid, [100 * found.accuracy(e).value for e in grid], marker="o", label=name)
plt.xlabel("epsilon")
plt.ylabel("accuracy, %")
plt.ylim(0, 100)
plt.legend()
plt.show()

# %% [markdown]
# ## A chosen answer
#
# Aim at a class: the gradient of the loss *to that class*, downhill. One step seldom arrives, twenty often do.

# %%
target = data.classes.index("Bag")
others = (shares(images).argmax(1) == labels) & (labels != target)
wanted = torch.full((int(others.sum()),), target)

hits = {}
for method in ("fgsm", "pgd:steps=20,step_size=0.1"):
    found = uf.attack(model, images[others], labels[others], "linf:0.1", method, targets=wanted)
    hits[method] = float(found.success.float().mean())
    print(f"{method}: {100 * hits[method]:.0f} % are read as a bag")

# %% [markdown]
# ## And a network that was trained for this
#
# It has seen such pictures in training. It pays for it with some clean accuracy, and keeps most of the rest.

# %%
hardened = uf.models.load("fashion-mnist/hardened")
tough = uf.sweep(hardened, images, labels, "linf:0.1", grid, "pgd:steps=20,step_size=0.1")

plt.plot(grid, [100 * pgd.accuracy(e).value for e in grid], marker="o", label="trained normally")
plt.plot(grid, [100 * tough.accuracy(e).value for e in grid], marker="s", label="trained against PGD")
plt.xlabel("epsilon")
plt.ylabel("accuracy under PGD, %")
plt.ylim(0, 100)
plt.legend()
plt.show()

# %% [markdown]
# Next: [a blurred model, both ways](a-blurred-model-both-ways.ipynb), or your own picture in the explorer: `unfooled
# explore`.
