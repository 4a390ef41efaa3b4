#: slow
# --- model ---
import torch
from torch.nn.functional import cross_entropy

import unfooled as uf

model = uf.models.load("fashion-mnist/plain")
data = uf.data.load("fashion-mnist-sample[0:500]")
images, labels = data.floats(), data.labels  # (500, 1, 28, 28) in [0, 1], and (500,)

with torch.no_grad():
    right = model(images).argmax(1) == labels
print(f"{100 * right.float().mean():.1f} % of {len(images)} pictures right")

# --- formula ---
which, eps = 84, 0.1
x, y = images[which : which + 1].clone().requires_grad_(), labels[which : which + 1]

loss = cross_entropy(model(x), y)  # J(θ, x, y): how wrong the network is
(gradient,) = torch.autograd.grad(loss, x)  # ∇ₓ J: how each pixel would make it more wrong
adversarial = (x + eps * gradient.sign()).clamp(0, 1).detach()


def say(picture):
    shares = model(picture).softmax(1)[0]
    return f"{data.classes[int(shares.argmax())]}, {100 * shares.max():.1f} %"


print("the picture:  ", say(x))
print("after FGSM:   ", say(adversarial))

# --- random ---
signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
print("random signs: ", say((x + eps * signs).clamp(0, 1)))

# --- hidden-triptych ---
from matplotlib.figure import Figure

from unfooled.report import style
from unfooled.report.images import as_bytes, between


def row(name, pictures):
    """Pictures in a row with a caption each, as NAME.png."""
    figure = Figure(figsize=(2.4 * len(pictures), 2.9), dpi=120, facecolor="white", layout="constrained")
    for axes, (caption, picture) in zip(figure.subplots(1, len(pictures)), pictures, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(caption, fontsize=10, color=style.INK.light)
        axes.axis("off")
    figure.savefig(f"{name}.png", metadata={"Software": None})


shot = between(x[0].detach().numpy(), adversarial[0].numpy())
row("triptych", [(say(x), shot.clean), (f"{shot.title}", shot.change), (say(adversarial), shot.adversarial)])

# --- verb ---
threat = uf.Linf(0.1)
found = uf.attack(model, images, labels, threat, uf.attacks.FGSM())

print("the same picture:", torch.allclose(found.adversarial[which], adversarial[0]))
print(f"right before: {100 * found.clean_accuracy:.1f} %, and after: {100 * found.robust_accuracy:.1f} %")

# --- curve ---
grid = [0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2]
fgsm = uf.sweep(model, images, labels, threat, grid, uf.attacks.FGSM())
pgd = uf.sweep(model, images, labels, threat, grid, uf.attacks.PGD(steps=20, step_size=0.1))

print(" eps    FGSM     PGD")
for e in grid:
    print(f"{e:4.2f}  {100 * fgsm.accuracy(e).value:4.1f} %  {100 * pgd.accuracy(e).value:4.1f} %")

# --- hidden-curve ---
from unfooled.report import plots
from unfooled.results import Curve, Panel


def plot(name, title, x_label, *curves):
    """Curves with their intervals, as NAME.png."""
    panel = Panel(id=name, title=title, x_label=x_label, curves=list(curves))
    plots.panel(panel).savefig(f"{name}.png", dpi=120, metadata={"Software": None})


plot(
    "curve",
    "Accuracy against epsilon",
    "eps, the largest change of a pixel that lies in [0, 1]",
    Curve(label="FGSM, one step", x=grid, y=fgsm.accuracies()),
    Curve(label="PGD, twenty steps", x=grid, y=pgd.accuracies()),
)

# --- target ---
bag = data.classes.index("Bag")
others = found.clean_correct & (labels != bag)
wanted = torch.full((int(others.sum()),), bag)

for attack in (uf.attacks.FGSM(), uf.attacks.PGD(steps=20, step_size=0.1)):
    bags = uf.attack(model, images[others], labels[others], threat, attack, targets=wanted)
    print(f"{attack.name}: {100 * bags.success.float().mean():.1f} % are bags now")

# --- hidden-target ---
named = [k for k in range(len(wanted)) if bool(bags.success[k])]
firsts = {int(labels[others][k]): k for k in reversed(named)}
row("bags", [(f"{data.classes[c]}", as_bytes(bags.adversarial[firsts[c]].numpy())) for c in sorted(firsts)[:5]])

# --- blur ---
blurred = uf.defend(model, uf.defenses.GaussianBlur(sigma=1.0))
blind = uf.attack(blurred, images, labels, threat, uf.attacks.FGSM(), surrogate=model)

print(f"no blur:              {100 * found.robust_accuracy:.1f} % after FGSM")
print(f"blur, nobody attacks: {100 * blind.clean_accuracy:.1f} %")
print(f"blur after the attack: {100 * blind.robust_accuracy:.1f} %")

# --- aware ---
aware = uf.attack(blurred, images, labels, threat, uf.attacks.FGSM())
print(f"attack through the blur: {100 * aware.robust_accuracy:.1f} %")

# --- why ---
blur = uf.defenses.GaussianBlur(sigma=1.0)
for name, result in (("made without the blur", blind), ("made through the blur", aware)):
    change = result.adversarial - images
    print(f"{name}: {100 * blur(change).abs().sum() / change.abs().sum():.0f} % of the change comes out of it")

# --- hidden-blur ---
strengths = [0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
walls = [uf.defend(model, uf.defenses.GaussianBlur(sigma=s)) for s in strengths]
ways = {"an attacker who does not know of it": ("non-adaptive", model), "one who does": ("adaptive", None)}
curves = []
for label, (role, lent) in ways.items():
    swept = [uf.sweep(wall, images, labels, threat, [0.1], uf.attacks.FGSM(), surrogate=lent) for wall in walls]
    curves.append(Curve(label=label, x=strengths, y=[one.accuracy(0.1) for one in swept], role=role))
clean = [uf.sweep(wall, images, labels, threat, [0], uf.attacks.FGSM()).accuracy(0) for wall in walls]
curves.append(Curve(label="nobody attacks", x=strengths, y=clean, role="clean"))
plot("blur", "Accuracy under FGSM at eps 0.1, behind a blur", "sigma of the blur, in pixels", *curves)

made = [result.adversarial[which] - images[which] for result in (blind, aware)]
left = [blur(change) for change in made]


def grey(change, most):
    """A change about mid-grey, which means none; most is shown as black or white."""
    return as_bytes(0.5 + 0.5 * change.numpy() / most)


row(
    "pattern",
    [
        ("made without the blur", grey(made[0], 0.1)),
        ("what the blur leaves of it", grey(left[0], 0.1)),
        ("made through the blur", grey(made[1], 0.1)),
        ("what the blur leaves of it", grey(left[1], 0.1)),
    ],
)

# --- hardened ---
hardened = uf.models.load("fashion-mnist/hardened")
verdict = uf.evaluate(hardened, data[0:200], threat)

left = verdict.robust_accuracy.attacked
print(f"right before: {100 * verdict.clean_accuracy.value:.1f} %")
print(f"under attack: {100 * left.value:.1f} %, 95 % interval {100 * left.low:.1f} to {100 * left.high:.1f} %")
print(f"trust: {verdict.trust}")

# --- judged ---
verdict = uf.evaluate(blurred, data[0:200], threat)
ways = verdict.defense

print(f"without the blur, under attack: {100 * ways.undefended.value:.1f} %")
print(f"with it, attack made without it: {100 * ways.non_adaptive.value:.1f} %")
print(f"with it, attack made through it: {100 * ways.adaptive.value:.1f} %")
print(f"trust: {verdict.trust}")
