"""No bound may be on the wrong side of any answer: by samples, by attacks, in the model's own arithmetic."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from helpers import assert_same, problem, snapshot
from random_networks import SPELLINGS, Call, Case, Concat, Normalize, Sum, case
from unfooled.certificates import bounded, certify, margins
from unfooled.errors import ModelError, ParameterError, UnfooledError
from unsound import F64, Given, Seen, attacked, claims, contradictions, lowest, margins_of

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ("ibp", "crown", "alpha-crown:steps=3")
NORMS = (uf.Linf, uf.L2, uf.L1)
BOTH = (ModelError, ParameterError)


def contained(c: Case, methods=METHODS, **more) -> None:
    seen = attacked(c, **more)
    for method in methods:
        wrong = contradictions(c, claims(c, method), seen, method)
        assert not wrong, "\n".join(wrong)


def labelled(model: nn.Module, images: torch.Tensor, threat: uf.Threat) -> Case:
    """A case with the model's own answers as labels."""
    model.eval()
    with torch.no_grad():
        return Case(0, model, images, model(images).argmax(1), threat)


def filled(model: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Weights drawn anew, by an own generator."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=make) / max(1, p[0].numel()) ** 0.5)
    return model.eval()


def dear(values, fast):
    """All of these values; those that are not among `fast` in slow runs only."""
    return [pytest.param(value, marks=() if value in fast else pytest.mark.slow) for value in values]


# ---- random networks ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", dear(range(0, 24, 8), [0]))
def test_random_networks(first, method):
    for seed in range(first, first + 8):
        contained(case(seed), (method,))


@pytest.mark.slow
def test_many_random_networks():
    for seed in range(1000, 3000):
        contained(case(seed))


# ---- every activation ---------------------------------------------------------------------------


class Units(nn.Module):
    """One input, many units: each has an interval of its own, and is a logit."""

    def __init__(self, activation: nn.Module, scale: float) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(1, 96)
        self.layer.weight.data = (
            scale * torch.randn((96, 1), generator=make) * 10 ** (torch.arange(96.0)[:, None] % 3 - 1)
        )
        self.layer.bias.data = scale * torch.randn(96, generator=make)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layer(x))


ACTIVATIONS = {
    "relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.1), "leaky steep": nn.LeakyReLU(1.5), "leaky falling": nn.LeakyReLU(-0.5),
    "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "gelu": nn.GELU(), "gelu tanh": nn.GELU("tanh"),
}  # fmt: skip


@pytest.mark.parametrize("eps", dear([1e-7, 0.1, 2.0], [0.1]))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_on_many_intervals(activation, eps):
    """A dense grid of the one input; the differences of logits take every sign of the coefficients."""
    for scale in (0.5, 10.0):
        model = Units(ACTIVATIONS[activation], scale).eval()
        images = torch.tensor([[0.0], [0.5], [0.83]])
        c = Case(0, model, images, torch.tensor([0, 5, 95]), uf.Linf(eps, (-30.0, 30.0)))
        low, high = images.to(F64) - eps, images.to(F64) + eps
        z = low[:, None] + torch.linspace(0, 1, 1501, dtype=F64)[:, None] * (high - low)[:, None]
        with torch.no_grad():
            grid = model.double()(z.reshape(-1, 1)).reshape(3, -1, 96)
            own = model.float()(z.float().reshape(-1, 1)).reshape(3, -1, 96).to(F64) if eps > 1e-6 else grid
        kept = (z.float() - images[:, None]).abs().amax((0, 2)).to(F64) <= eps
        own = own[:, kept] if eps > 1e-6 else own
        for method in METHODS:
            try:
                given = claims(c, method)
            except BOTH:
                assert activation == "leaky falling", f"{method} refuses {activation}"
                continue
            wrong = contradictions(c, given, Seen(grid, own), method)
            assert not wrong, "\n".join(wrong)


def net_of(activation: nn.Module) -> nn.Module:
    body = nn.Sequential(nn.Linear(12, 12), activation, nn.Linear(12, 12))
    return nn.Sequential(nn.Linear(6, 12), activation, Sum(body, nn.Identity(), "a + b"), activation, nn.Linear(12, 4))


@pytest.mark.parametrize("norm", dear(NORMS, NORMS[:1]))
@pytest.mark.parametrize("activation", [n for n in ACTIVATIONS if n != "leaky falling"])
def test_a_deep_net_of_each_activation_in_each_norm(activation, norm):
    images = torch.rand(3, 6, generator=torch.Generator().manual_seed(2))
    for eps in (0.01, 0.5):
        contained(labelled(filled(net_of(ACTIVATIONS[activation]), 1, 2.0), images, norm(eps)))


@pytest.mark.parametrize(
    "name", [n for n in SPELLINGS if not n.startswith(("torch.flatten", "x.flatten", "x.view", "x.resh"))]
)
def test_every_functional_spelling(name):
    dims = 1 if name.endswith("1d") else 2
    conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(1, 2, 3, padding=1)
    images = torch.rand((2, 1, *[4] * dims), generator=torch.Generator().manual_seed(0))
    head = nn.Sequential(conv, Call(name), nn.Flatten())
    width = head(images).shape[1]
    contained(labelled(filled(nn.Sequential(*head, nn.Linear(width, 3)), 3), images, uf.Linf(0.1)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d((2, 1), (1, 2)), nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((2, 1)),
        nn.AdaptiveAvgPool2d((None, 1)),
    ],
    ids=repr,
)  # fmt: skip
def test_pooling_in_each_norm(pool, norm):
    """Padding must never win a maximum: all values are far below zero."""
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    conv = filled(nn.Conv2d(1, 2, 3, padding=1), 1)
    for bias in (0.0, -10.0):
        conv.bias.data.fill_(bias)
        head = nn.Sequential(conv, pool, nn.Flatten())
        last = filled(nn.Linear(head(images).shape[1], 3), 2)
        contained(labelled(nn.Sequential(*head, last), images, norm(0.2)))


# ---- options of layers that need not be supported, but may not be wrong -------------------------


class Aliased(nn.Module):
    """The activation changes in place what the shortcut adds: relu(x) + relu(x)."""

    def __init__(self, spelled) -> None:
        super().__init__()
        self.first, self.last, self.spelled = nn.Linear(4, 6), nn.Linear(6, 3), spelled

    def forward(self, x):
        y = self.first(x)
        return self.last(self.spelled(y) + y)


class AliasedSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = kept = self.first(x)
        y += torch.relu(y)
        return self.last(y + kept)


class AliasedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.first(x)
        F.relu(y.view(-1, 6), inplace=True)
        return self.last(y)


class DropsOut(nn.Module):
    """F.dropout's own default is to draw, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(F.dropout(self.first(x).tanh(), 0.5))


class Mixing(nn.Module):
    """The rows of a batch look at each other: no bound of one row can know the others."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.cat([x, x], 0)[len(x) :] - x.mean(0))


class Permuted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(x.view(len(x), 2, 2).transpose(1, 2).reshape(len(x), 4))


ODD = {
    "relu in place, aliased": lambda: Aliased(nn.ReLU(inplace=True)),
    "F.relu in place, aliased": lambda: Aliased(lambda y: F.relu(y, inplace=True)),
    "relu_, aliased": lambda: Aliased(torch.relu_),
    "leaky in place, aliased": lambda: Aliased(nn.LeakyReLU(0.1, inplace=True)),
    "+=, aliased": AliasedSum,
    "in place through a view": AliasedView,
    "mixing the rows": Mixing,
    "permuted": Permuted,
    "clamp": lambda: nn.Sequential(nn.Linear(4, 6), Wrap(lambda x: x.clamp(min=-0.1, max=0.2)), nn.Linear(6, 3)),
    "relu6": lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU6(), nn.Linear(6, 3)),
    "softplus": lambda: nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 3)),
    "product of two": lambda: nn.Sequential(nn.Linear(4, 6), Wrap(lambda x: x * x), nn.Linear(6, 3)),
    "quotient": lambda: nn.Sequential(nn.Linear(4, 6), Wrap(lambda x: 1 / (x + 3)), nn.Linear(6, 3)),
    "prelu": lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 3)),
    "two ends of a split": lambda: nn.Sequential(nn.Linear(4, 6), Wrap(lambda x: x[:, :3] - x[:, 3:].relu()), nn.Linear(3, 3)),
    "a stack": lambda: nn.Sequential(nn.Linear(4, 6), Wrap(lambda x: torch.stack([x, -x], 1).flatten(1)), nn.Linear(12, 3)),
    "linear on the last axis": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)),
    "linear with relu on the middle": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(0, 1), nn.Linear(2, 4), nn.Unflatten(0, (-1, 2)), nn.Flatten(), nn.Linear(8, 3)),
}  # fmt: skip

ODD_IMAGES = {
    "ceil_mode": nn.MaxPool2d(2, ceil_mode=True),
    "dilated": nn.MaxPool2d(2, 1, dilation=2),
    "average, ceil_mode": nn.AvgPool2d(2, ceil_mode=True),
    "average, ceil_mode, padding": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average, ceil_mode, padding not counted": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "divisor": nn.AvgPool2d(2, divisor_override=3),
    "adaptive, uneven": nn.AdaptiveAvgPool2d(3),
    "adaptive max": nn.AdaptiveMaxPool2d(2),
    "reflect": nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
    "same": nn.Conv2d(1, 2, 4, padding="same"),
    "transposed": nn.ConvTranspose2d(1, 2, 3, 2),
    "group norm": nn.GroupNorm(1, 1),
    "instance norm": nn.InstanceNorm2d(1),
    "batch statistics": nn.BatchNorm2d(1, track_running_stats=False),
    "upsampled": nn.Upsample(scale_factor=2),
    "zero padding": nn.ZeroPad2d((1, 0, 2, 0)),
}


class Wrap(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def supported_or_refused(c: Case) -> None:
    seen = attacked(c)
    for method in METHODS:
        try:
            given = claims(c, method)
        except BOTH:
            continue
        wrong = contradictions(c, given, seen, method)
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ODD)
def test_odd_models_are_right_or_refused(name):
    images = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    for seed in range(2):
        supported_or_refused(labelled(filled(ODD[name](), seed, 1.5), images, uf.Linf(0.3)))


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_odd_options_are_right_or_refused(name):
    images = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    head = nn.Sequential(ODD_IMAGES[name], nn.ReLU(), nn.Flatten()).eval()
    width = head(images).shape[1]
    supported_or_refused(labelled(filled(nn.Sequential(*head, nn.Linear(width, 3)), 1), images, uf.Linf(0.1)))


def test_a_model_that_draws_is_refused():
    images = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(BOTH, match="dropout"):
        bounded(filled(DropsOut()), images, uf.Linf(0.1), "crown")


# ---- against the library's own attacks ----------------------------------------------------------


@pytest.mark.parametrize("first", dear(range(0, 8, 4), [0]))
def test_no_attack_of_the_library_passes_a_bound(first):
    for seed in range(first, first + 4):
        c = case(seed)
        classes = c.model(c.images).shape[1]
        given = {method: claims(c, method) for method in METHODS}
        for k in range(classes):
            targets = torch.full_like(c.labels, k)
            right = (targets != c.labels).nonzero().squeeze(1)
            if not len(right):
                continue
            part = Case(seed, c.model, c.images[right], c.labels[right], c.threat)
            found = uf.attack(
                part.model, part.images, part.labels, part.threat, "pgd:steps=12,step_size=0.25,loss=margin",
                targets=targets[right], early_stop=False,
            )  # fmt: skip
            with torch.no_grad():
                logits = part.model(found.adversarial).to(F64)[:, None]
            for method, g in given.items():
                mine = Given(*(getattr(g, n)[right] for n in ("lower", "upper", "margins")))
                wrong = contradictions(part, mine, Seen(logits, logits), method)
                assert not wrong, "\n".join(wrong)
                assert not bool(found.success[mine.margins.amin(1) > 0].any()), f"{c}: {method}: certified, and fooled"


@pytest.mark.parametrize("method", METHODS)
def test_certified_is_a_positive_margin(method):
    proved = 0
    for seed in range(6):
        c = case(seed)
        found = certify(c.model, (c.images, c.labels), c.threat, method=method).certified
        assert found.shape == (len(c.images),)
        assert found.dtype == torch.bool
        assert torch.equal(found.cpu(), margins(c.model, c.images, c.labels, c.threat, method).amin(1) > 0)
        with torch.no_grad():
            assert bool((c.model(c.images).argmax(1) == c.labels)[found].all()), "a wrong answer is no robust one"
        proved += int(found.sum())
    assert proved > 3


# ---- float rounding -----------------------------------------------------------------------------


def float32_points(c: Case, count: int = 400) -> torch.Tensor:
    """Corners and interior points that `contains` lets pass, (N, P, D), in the images' precision."""
    make, x = torch.Generator().manual_seed(0), c.images.flatten(1)[:, None]
    low, high = c.threat.bounds
    tolerance = 2 * torch.finfo(x.dtype).eps * float(x.abs().max()) + 64 * torch.finfo(x.dtype).eps * c.threat.eps
    signs = torch.randint(0, 2, (len(x), count, x.shape[2]), generator=make) * 2 - 1
    radius = torch.tensor([1.0, 1.0, 0.999, 0.5]).repeat(count)[:count, None] * c.threat.eps
    radius = radius.double() + tolerance * torch.tensor([0.9, 0, 0, 0]).repeat(count)[:count, None]
    z = (x.double() + radius * signs).to(x.dtype).clamp(low, high)
    flat = x.expand_as(z).reshape(-1, *c.images.shape[1:])
    inside = c.threat.contains(z.reshape(flat.shape), flat).reshape(z.shape[:2])
    return torch.where(inside[..., None], z, x)


def answers(c: Case, z: torch.Tensor, sizes=(1000, 7)) -> torch.Tensor:
    """(N, P·len(sizes), K): the model's own logits, in batches of several sizes, for their sums run in other orders."""
    flat = z.reshape(-1, *c.images.shape[1:])
    with torch.no_grad():
        runs = [torch.cat([c.model(part) for part in flat.split(size)]) for size in sizes]
    return torch.cat([run.reshape(*z.shape[:2], -1) for run in runs], 1).to(F64)


def cancelling(seed: int, size: float, delta: float) -> Case:
    """A linear model of huge weights whose exact least margin over the box is delta: far below float32's error."""
    make = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2)).eval()
    x = torch.rand(2, 64, generator=make)
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(size * torch.randn(layer.weight.shape, generator=make))
            layer.bias.copy_(-layer.weight.sum(1) * 0.5)
        w = model[1].weight.double() @ model[0].weight.double()
        g = w[0] - w[1]
        x[1] = x[0]
        least = g @ x[0].double() - 0.05 * g.abs().sum() + model[1].weight.double()[0] @ model[0].bias.double()
        least -= model[1].weight.double()[1] @ model[0].bias.double()
        model[1].bias[0], model[1].bias[1] = 0.0, float(least - delta)
    return Case(seed, model, x, torch.zeros(2, dtype=torch.int64), uf.Linf(0.05, (-1.0, 2.0)))


@pytest.mark.parametrize("method", dear(METHODS, ["crown"]))
def test_no_certificate_within_float32s_error(method):
    """The steepest corner, in several orders of summing: where one answer is wrong, nothing may be certified."""
    wrong_anyway, claimed = 0, 0
    for seed in range(12):
        for size in (1.0, 100.0):
            for share in (1e-9, 1e-7, 1e-6, 1e-5, 1e-3):
                c = cancelling(seed, size, share * size**2 * 64)
                w = (c.model[1].weight @ c.model[0].weight).double()
                corner = (c.images.double() - 0.05 * (w[0] - w[1]).sign()).float()
                near = torch.stack([corner, corner.nextafter(c.images), c.images], 1)
                inside = c.threat.contains(near.reshape(-1, 64), c.images[:, None].expand_as(near).reshape(-1, 64))
                near = torch.where(inside.reshape(2, 3)[..., None], near, c.images[:, None])
                logits = answers(c, torch.cat([near, float32_points(c, 40)], 1), (1000, 1))
                given = claims(c, method)
                found = contradictions(c, given, Seen(logits, logits), method)
                assert not found, "\n".join(found)
                fooled = margins_of(logits, c.labels)[:, :, 1].amin(1) <= 0
                wrong_anyway += int(fooled.sum())
                claimed += int((given.margins.amin(1) > 0).sum())
    assert wrong_anyway > 20, "the test has no danger in it"
    assert claimed > 20, "nothing is certified at a margin of a thousandth"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", NORMS)
def test_points_that_contains_lets_pass_are_covered(norm, method):
    """A linear margin that is positive up to eps and negative a tolerance beyond it."""
    dims = 4
    for eps in (1e-8, 1e-6, 1e-3, 0.1):
        model = nn.Linear(dims, 2)
        model.weight.data = torch.tensor([[1.0] * dims, [-1.0] * dims]) / 2
        x = torch.full((1, dims), 0.75)
        reach = {uf.Linf: eps * dims, uf.L2: eps * math.sqrt(dims), uf.L1: eps}[norm]
        for slack in (0.0, 1e-8, 3e-8):
            model.bias.data = torch.tensor([float(-(0.75 * dims) + reach * (1 + slack) + slack), 0.0])
            c = Case(0, model.eval(), x, torch.tensor([0]), norm(eps))
            ulp = 2**-24
            steps = [x - eps / {uf.Linf: 1, uf.L2: math.sqrt(dims), uf.L1: dims}[norm] - n * ulp for n in range(-2, 40)]
            steps += [torch.cat([x[:, :1] - eps - n * ulp, x[:, 1:]], 1) for n in range(-2, 40)]
            z = torch.stack(steps, 1)
            inside = c.threat.contains(z[0], x.expand_as(z[0]))
            logits = answers(c, torch.where(inside[:, None], z[0], x)[None])
            found = contradictions(c, claims(c, method), Seen(logits, logits), method)
            assert not found, "\n".join(found)


ROUNDING = {
    "underflow": lambda: [nn.Linear(4, 8), Wrap(lambda x: x * 1e-30), nn.Linear(8, 8), Wrap(lambda x: x * 1e-14), nn.Linear(8, 3, False)],
    "scaled up and down": lambda: [nn.Linear(4, 8), Wrap(lambda x: x * 1e7), Wrap(lambda x: x + 1e7), Wrap(lambda x: x - 1e7), nn.ReLU(), Wrap(lambda x: x / 1e7), nn.Linear(8, 3)],
    "lost under a constant": lambda: [nn.Linear(4, 8), Wrap(lambda x: x + 1e6), nn.ReLU(), Wrap(lambda x: x - 1e6), nn.Linear(8, 3)],
    "normalised far away": lambda: [Normalize(torch.tensor(1000.0), torch.tensor(1e-3)), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)],
    "saturated": lambda: [nn.Linear(4, 8), Wrap(lambda x: x * 50), nn.Sigmoid(), Wrap(lambda x: x * 1e6), nn.Linear(8, 3)],
    "gelu's tails": lambda: [nn.Linear(4, 8), Wrap(lambda x: x * 20 - 3), nn.GELU(), Wrap(lambda x: x * 1e6), nn.Linear(8, 3)],
    "gelu by tanh's tails": lambda: [nn.Linear(4, 8), Wrap(lambda x: x * 20 - 3), nn.GELU("tanh"), Wrap(lambda x: x * 1e6), nn.Linear(8, 3)],
    "a difference of equals": lambda: [nn.Linear(4, 8), Wrap(lambda x: (x * 3 + x) * 1e5 - x * 4e5), nn.Linear(8, 3)],
    "a batch norm of no variance": lambda: [nn.Linear(4, 8), flat_norm(), nn.ReLU(), nn.Linear(8, 3)],
    "constants that float32 does not hold": lambda: [nn.Linear(4, 8), Wrap(lambda x: (x * 0.1 + 1 / 3) / 0.7 - 0.3), nn.ReLU(), nn.Linear(8, 3)],
}  # fmt: skip


def flat_norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(8, eps=1e-12)
    norm.running_var.fill_(1e-9)
    norm.running_mean.fill_(0.3)
    return norm


@pytest.mark.parametrize("eps", dear([1e-9, 1e-4, 0.1], [1e-4]))
@pytest.mark.parametrize("name", ROUNDING)
def test_the_bounds_hold_for_the_models_own_arithmetic(name, eps):
    images = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        layers = ROUNDING[name]()
        for layer in layers:
            if isinstance(layer, nn.Linear):
                filled(layer, seed)
        c = labelled(nn.Sequential(*layers), images, uf.Linf(eps))
        seen = attacked(c)
        logits = torch.cat([seen.own, answers(c, float32_points(c, 100))], 1)
        for method in METHODS:
            wrong = contradictions(c, claims(c, method), Seen(seen.wide, logits), method)
            assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_eps_leaves_tight_bounds(method):
    for norm in NORMS:
        c = labelled(
            filled(net_of(nn.ReLU()), 1), torch.rand(3, 6, generator=torch.Generator().manual_seed(2)), norm(1e-10)
        )
        given = claims(c, method)
        assert bool((given.upper - given.lower < 1e-3).all())
        assert not contradictions(c, given, attacked(c), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", NORMS)
def test_an_infinite_eps_is_the_whole_box_or_refused(norm, method):
    c = labelled(
        filled(net_of(nn.ReLU()), 1), torch.rand(3, 6, generator=torch.Generator().manual_seed(2)), norm(torch.inf)
    )
    try:
        given = claims(c, method)
    except BOTH:
        return
    whole = replace(c, threat=uf.Linf(1.0))
    assert not contradictions(c, given, attacked(whole), method)


# ---- what is not supported ----------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, x):
        x = x.view(-1, 2, 2)
        share = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1)
        return self.last((share @ self.v(x)).flatten(1))


class ModuleAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        x = x.view(-1, 2, 2)
        return self.last(self.attention(x, x, x, need_weights=False)[0].flatten(1))


class Depends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(x) if x.sum() > 0 else self.last(-x)


class Sorts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.sort(x, 1).values)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.last = nn.LSTM(2, 3, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.cells(x.view(-1, 2, 2))[0].flatten(1))


REFUSED = {
    "softmax|matmul|@": Attention, "MultiheadAttention": ModuleAttention, r"Depends|control flow|\bif\b": Depends,
    "sort": Sorts, "LSTM": Recurrent, "Softmax": lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_a_layer_without_bounds_is_named_in_one_line(words):
    model, images = REFUSED[words]().eval(), torch.rand(2, 4)
    before = snapshot(model)
    for call in (
        lambda: bounded(model, images, uf.Linf(0.1), "crown"),
        lambda: margins(model, images, torch.tensor([0, 1]), uf.Linf(0.1), "ibp"),
        lambda: certify(model, (images, torch.tensor([0, 1])), uf.Linf(0.1), method="crown"),
    ):
        with pytest.raises(BOTH, match=words) as refusal:
            call()
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 400
        assert_same(before, snapshot(model))


def test_wrong_arguments_are_one_line_each():
    model, images, labels = nn.Linear(4, 3), torch.rand(2, 4), torch.tensor([0, 1])
    for call in (
        lambda: bounded(model, images, uf.L0(2), "crown"),
        lambda: bounded(model, images, uf.Linf(0.1), "crowned"),
        lambda: bounded(model, images, uf.Linf(0.1), "alpha-crown:steps=-1"),
        lambda: bounded(model, images + 2, uf.Linf(0.1), "crown"),
        lambda: bounded(model, torch.full((2, 4), torch.nan), uf.Linf(0.1), "crown"),
        lambda: margins(model, images, labels[:1], uf.Linf(0.1), "crown"),
        lambda: margins(model, images, labels + 5, uf.Linf(0.1), "crown"),
        lambda: certify(model, (images, labels - 1), uf.Linf(0.1), method="crown"),
    ):
        with pytest.raises(UnfooledError) as refusal:
            call()
        assert "\n" not in str(refusal.value)


# ---- the caller's things ------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(method, training):
    p = problem((2, 4, 4), count=4)
    for q in list(p.model.parameters())[::2]:
        q.requires_grad_(False)
    threat = p.threat(uf.Linf, 0.3)
    usual = margins(p.model, p.x, p.y, threat, method)
    p.model.train(training)
    p.model.head.eval()
    before, images, state = snapshot(p.model), p.x.clone(), torch.get_rng_state()
    again = margins(p.model, p.x, p.y, threat, method)
    bounded(p.model, p.x, threat, method)
    certify(p.model, (p.x, p.y), threat, method=method)
    assert_same(before, snapshot(p.model))
    assert torch.equal(images, p.x)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.allclose(usual, again, rtol=1e-9, atol=1e-12)
    with torch.no_grad(), torch.inference_mode():
        assert torch.allclose(usual, margins(p.model, p.x, p.y, threat, method), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_a_blur_in_front_is_bounded_exactly_and_still_works_afterwards(method):
    """It is linear; the matrices that it keeps are made in its first call, which must not be the trace's."""
    images = 0.3 + 0.4 * torch.rand(3, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    last = filled(nn.Sequential(nn.Flatten(), nn.Linear(60, 3)))
    model, eps = uf.defend(last, uf.defenses.GaussianBlur(sigma=0.7)).eval(), 0.1
    found = bounded(model, images, uf.Linf(eps), method)
    with torch.no_grad():
        middle, basis = model(images), torch.eye(60).view(60, 2, 6, 5)
        reach = eps * (model(basis) - model(torch.zeros(1, 2, 6, 5))).abs().sum(0)
    torch.testing.assert_close(found.lower.float(), middle - reach, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.upper.float(), middle + reach, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", dear([(5,), (2, 6), (2, 4, 4)], [(2, 4, 4)]))
def test_shapes_precisions_and_batches(shape, dtype, method):
    """A row's bounds do not depend on the other rows."""
    p = problem(shape, classes=3, dtype=dtype, count=6)
    for norm in NORMS:
        c = Case(0, p.model, p.x, p.y, p.threat(norm, 0.5))
        given = claims(c, method)
        assert not contradictions(c, given, attacked(c), method)
        for row in range(0, 6, 2):
            part = replace(c, images=p.x[row : row + 1], labels=p.y[row : row + 1])
            alone = claims(part, method)
            for name in ("lower", "upper", "margins"):
                one, many = getattr(alone, name)[0], getattr(given, name)[row]
                assert torch.allclose(one, many, rtol=1e-7, atol=1e-9), f"{name} of row {row}, alone and in a batch"


def test_masks_and_bounds_shrink_the_set():
    p = problem((2, 4, 4), classes=3, count=4)
    threat = p.threat(uf.Linf, 1.0)
    free = margins(p.model, p.x, p.y, threat, "crown")
    half = torch.zeros(2, 4, 4, dtype=torch.bool)
    half[0] = True
    masked = margins(p.model, p.x, p.y, threat.with_mask(half), "crown")
    none = margins(p.model, p.x, p.y, threat.with_mask(torch.zeros(1, dtype=torch.bool)), "crown")
    others = torch.isfinite(free)
    assert bool((masked[others] > free[others]).all())
    with torch.no_grad():
        logits = p.model(p.x).double()
    exactly = logits.gather(1, p.y[:, None]) - logits
    assert torch.allclose(none[others], exactly[others], atol=1e-3)
    assert bool((none[others] <= exactly[others]).all())


# ---- the checks themselves ----------------------------------------------------------------------


def tight(c: Case) -> Given:
    """What sampling and attack find, as if it were a bound: nearly exact on small networks, and not sound."""
    seen = attacked(c, count=2000, steps=30)
    least = lowest(c, seen)
    least[torch.arange(len(least)), c.labels] = torch.inf
    return Given(seen.wide.amin(1), seen.wide.amax(1), least)


def shrunk(given: Given, share: float) -> Given:
    """Every interval narrower by that share, on both sides; margins by as much."""
    step = share * (given.upper - given.lower)
    return Given(given.lower + step, given.upper - step, given.margins + step)


MUTANTS = {
    "intervals 1 % too narrow": lambda c: shrunk(claims(c, "crown"), 0.01),
    "margins alone 1 % too high": lambda c: replace(claims(c, "crown"), margins=shrunk(claims(c, "crown"), 0.01).margins),
    "a radius 1 % too small": lambda c: claims(replace(c, threat=c.threat.within(0.99 * c.threat.eps)), "crown"),
    "another norm's dual": lambda c: claims(replace(c, threat=uf.L2(c.threat.eps, c.threat.bounds, c.threat.mask)), "crown"),
    "the answer at x": lambda c: at_the_image(c),
    "a mask turned round": lambda c: claims(replace(c, threat=c.threat.with_mask(torch.zeros(1, dtype=torch.bool))), "crown"),
    "a hundredth of the units are off": lambda c: shrunk(tight(c), 0.01),
}  # fmt: skip


def at_the_image(c: Case) -> Given:
    with torch.no_grad():
        logits = c.model(c.images).to(F64)
    given = margins_of(logits[:, None], c.labels)[:, 0]
    given[torch.arange(len(given)), c.labels] = torch.inf
    return Given(logits, logits, given)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_unsound_bounds_are_caught(mutant):
    """On linear and one-layer networks, where bounds are tight, nearly every one of these is seen."""
    caught = 0
    make = torch.Generator().manual_seed(0)
    for seed in range(10):
        model = filled(
            nn.Sequential(nn.Linear(5, 3)) if seed % 2 else nn.Sequential(nn.Flatten(), nn.Linear(5, 4)), seed
        )
        c = labelled(model, 0.3 + 0.4 * torch.rand(2, 5, generator=make), uf.Linf(0.2))
        assert not contradictions(c, claims(c, "crown"), attacked(c))
        caught += bool(contradictions(c, MUTANTS[mutant](c), attacked(c)))
    assert caught == 10


def test_unsound_bounds_are_caught_on_random_networks():
    caught = sum(bool(contradictions(c, shrunk(tight(c), 0.01), attacked(c))) for c in map(case, range(30)))
    assert caught >= 25


def test_a_bound_without_float32s_error_is_caught():
    """The exact minimum in float64 is no bound of what the model itself answers."""
    caught = 0
    for seed in range(20):
        c = cancelling(seed, 100.0, 1.0)
        w = (c.model[1].weight.double() @ c.model[0].weight.double())[0] - (
            c.model[1].weight.double() @ c.model[0].weight.double()
        )[1]
        corner = (c.images.double() - 0.05 * w.sign()).float()
        logits = answers(c, corner[:, None], (1000, 1))
        given = torch.tensor([[torch.inf, 1.0]] * 2, dtype=F64)
        wide = torch.full((2, 2), torch.inf, dtype=F64)
        caught += bool(contradictions(c, Given(-wide, wide, given), Seen(logits, logits)))
    assert caught > 5


def test_points_lie_in_the_set():
    """Else the checks would blame sound bounds: by another formula, on every norm."""
    for seed in range(40):
        c = case(seed)
        from unsound import Ball

        ball = Ball.of(c)
        make = torch.Generator().manual_seed(0)
        g = torch.randn((len(c.images), 5, c.images[0].numel()), generator=make, dtype=F64)
        z = torch.cat([ball.sample(50, make), ball.lowest(g)], 1)
        wide = c.images.to(F64)
        bounds = tuple(b.to(F64) if isinstance(b, torch.Tensor) else b for b in c.threat.bounds)
        threat = type(c.threat)(c.threat.eps, bounds, c.threat.mask)
        for at in range(len(z)):
            points = z[at].reshape(-1, *c.images.shape[1:])
            assert bool(threat.contains(points, wide[at : at + 1].expand_as(points)).all()), str(c)


def test_concat_and_sum_of_one_tensor():
    """x, -x and x again: the sum of the branches is known exactly."""
    images = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    body = filled(nn.Linear(4, 4), 1)
    model = nn.Sequential(
        Concat([body, nn.Identity(), body]), filled(nn.Linear(12, 3), 2), Sum(nn.Identity(), nn.Linear(3, 3), "a - b")
    )
    for norm in NORMS:
        contained(labelled(filled(model, 3), images, norm(0.2)))
