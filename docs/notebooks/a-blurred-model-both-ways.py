# %% [markdown]
# # A blurred model, both ways
#
# Adversarial pictures look noisy, so why not blur them before the network sees them? It seems to work. This notebook
# asks the same question twice: of an attacker who does not know of the blur, and of one who does.

# %%
import matplotlib.pyplot as plt

import unfooled as uf

model = uf.models.load("fashion-mnist/plain")
data = uf.data.load("fashion-mnist-sample[0:300]")
images, labels, threat = data.floats(), data.labels, uf.Linf(0.1)


def percent(share):
    return f"{100 * share:.1f} %"


# %% [markdown]
# ## Without the blur

# %%
bare = uf.attack(model, images, labels, threat, uf.attacks.FGSM())
print("clean:     ", percent(bare.clean_accuracy))
print("after FGSM:", percent(bare.robust_accuracy))

# %% [markdown]
# ## The blur, and an attacker who does not know of it
#
# `surrogate=` says where gradients come from: here from the network alone. The verdict is always that of the blurred
# model.

# %%
blur = uf.defenses.GaussianBlur(sigma=1.0)
blurred = uf.defend(model, blur)

blind = uf.attack(blurred, images, labels, threat, uf.attacks.FGSM(), surrogate=model)
print("clean, blurred:            ", percent(blind.clean_accuracy))
print("attacked without the blur: ", percent(blind.robust_accuracy))

# %% [markdown]
# ## The same attack, by one who knows
#
# A blur is a matrix, and has a gradient like any layer. Nothing changes but where the gradient is taken.

# %%
aware = uf.attack(blurred, images, labels, threat, uf.attacks.FGSM())
gap = blind.robust_accuracy - aware.robust_accuracy
print("attacked through the blur: ", percent(aware.robust_accuracy))
print(f"the gap: {100 * gap:.1f} points that were never there")

# %% [markdown]
# ## Why
#
# The first attacker's pattern flips from pixel to pixel, and the blur averages it away. The second one's is made of
# patches that a blur lets through.

# %%
which = int((blind.clean_correct & aware.success).nonzero()[0])
changes = [found.adversarial - images for found in (blind, aware)]
left = [float(blur(change).abs().sum() / change.abs().sum()) for change in changes]

_, places = plt.subplots(2, 2, figsize=(5, 5.4))
for row, (change, name) in enumerate(zip(changes, ("made without the blur", "made through it"), strict=True)):
    for column, (shown, what) in enumerate(
        ((change, name), (blur(change), f"{percent(left[row])} of it comes through"))
    ):
        places[row, column].imshow(shown[which, 0], cmap="gray", vmin=-0.1, vmax=0.1)
        places[row, column].set_title(what, fontsize=9)
        places[row, column].axis("off")
plt.show()

# %% [markdown]
# ## At every strength

# %%
strengths = [0, 0.4, 0.8, 1.2, 1.6, 2.0]
curves = {"clean": [], "attacker does not know": [], "attacker knows": [], "attacker knows, 20 steps": []}
for sigma in strengths:
    wall = uf.defend(model, uf.defenses.GaussianBlur(sigma=sigma))
    unaware = uf.attack(wall, images, labels, threat, uf.attacks.FGSM(), surrogate=model)
    knowing = uf.attack(wall, images, labels, threat, uf.attacks.FGSM())
    patient = uf.attack(wall, images, labels, threat, uf.attacks.PGD(steps=20, step_size=0.1))
    found = (unaware.clean_accuracy, unaware.robust_accuracy, knowing.robust_accuracy, patient.robust_accuracy)
    for curve, share in zip(curves.values(), found, strict=True):
        curve.append(100 * share)

for (name, curve), style in zip(curves.items(), (":", "--", "-", "-"), strict=True):
    plt.plot(strengths, curve, style, marker="o", label=name)
plt.xlabel("sigma of the blur, in pixels")
plt.ylabel("accuracy, %")
plt.ylim(0, 100)
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Let `evaluate` ask
#
# It shows a defense three ways by itself, with intervals, and says how far the number can be believed.

# %%
verdict = uf.evaluate(blurred, data[0:200], threat)
ways = verdict.defense
print("1. the network alone, under attack:     ", percent(ways.undefended.value))
print("2. blurred, attacked without the blur:  ", percent(ways.non_adaptive.value))
print("3. blurred, attacked through it:        ", percent(ways.adaptive.value))
print("trust:", verdict.trust)
