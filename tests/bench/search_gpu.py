#!/usr/bin/env python3
"""The search behind the recipe best: discriminators and losses, each trained for tens of thousands of steps on a GPU.

    tests/bench/search_gpu.py [--only NAME ...] [--models G.onnx ...] [--ends LOW HIGH] [--judges JUDGE.onnx ...] [--out DIR] [--steps N]

It trains the tuned recipe with other settings in PyTorch, eight variants at once with a CUDA graph each: a variant takes ten to twenty
seconds on an H100, and would take an hour in the trainer on two CPU cores. Then it prints a row of search.md for each. With --models it
prints the rows of these generators, which a CPU can do in minutes. It needs torch, with CUDA to train, and onnx. MNIST_DIR names the
folder of MNIST. --out also keeps the variants' weights, as .npz files.

Differences from the trainer: TF32 is on, the images of a step are drawn with replacement, the last generator is judged, and G's last
bias starts at 0.999 instead of 0.98 where the mean image is black. With two discriminators R1 is of the sum of their logits.
"""
import argparse, copy, gzip, math, os, time
import numpy as np
import onnx, onnx.numpy_helper
import torch
import torch.nn as nn
import torch.nn.functional as F

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
DATA = os.environ.get("MNIST_DIR", os.path.join(ROOT, "..", "shared", "data", "mnist"))
G_SIZES = (100, 32, 64, 128, 784)
D_16, D_32, D_64 = (("conv4", maps, width) for maps, width in (((16, 32), 128), ((32, 64), 128), ((64, 128), 256)))
MLP = ("mlp", (), (256, 128))
WEAKER = {"r1": 3, "r1_end": 0.3}
SPREAD = {"spread": 0.5, "rounded": True}
FINE = SPREAD | {"spread": 0.75}
LONG, SHORT = 60_000, 30_000
SETTLED = {"spread": 0.75, "r1": 1, "d": [D_16], "lr_end": 0.02, "ema": 0.9995, "steps": LONG}
BEST = SPREAD | {"r1": 1, "steps": LONG}
DARK = {"spread": 0.75, "r1": 1, "cap": 250, "steps": LONG}
SHARP = DARK | {"sharp": 2}
# Settings that differ from DEFAULTS, by variant.
VARIANTS = {
    "tuned": {"d": [MLP], "r1": 0.3},
    "R1 3": {},
    "R1 3 to 0.1": {"r1_end": 0.1},
    "R1 3 to 0.3": WEAKER,
    "R1 1 to 0.1, each step": {"r1": 1, "r1_end": 0.1, "r1_every": 1},
    "D 64-128": WEAKER | {"d": [D_64]},
    "D of 5 x 5": WEAKER | {"d": [("conv5", (32, 64), 128)]},
    "D of 3 x 3, mean of 2 x 2": WEAKER | {"d": [("mean", (16, 32), 128)]},
    "D of 3 x 3, maximum of 2 x 2": WEAKER | {"d": [("max", (16, 32), 84)]},
    "two D": WEAKER | {"d": [D_32, D_32]},
    "D and an MLP": WEAKER | {"d": [D_32, MLP]},
    "shifts of 2 pixels": WEAKER | {"shift": 2},
    "hinge loss": WEAKER | {"hinge": True},
    "batch 512": WEAKER | {"batch": 512, "steps": SHORT // 2},
    "lr 0.0015": WEAKER | {"lr": 0.0015},
    "lr 0.006": WEAKER | {"lr": 0.006},
    "lr to 0": WEAKER | {"lr_end": 0.01, "cosine": True},
    "rounded fakes": WEAKER | {"rounded": True},
    "last layer of 256": WEAKER | {"g": (100, 32, 64, 256, 784)},
    "G 128-256-512": WEAKER | {"g": (100, 128, 256, 512, 784)},
    "spread 0.25": SPREAD | {"spread": 0.25},
    "spread 0.5": SPREAD,
    "spread 0.5, fakes not rounded": SPREAD | {"rounded": False},
    "spread 0.75": FINE,
    "spread 1": SPREAD | {"spread": 1},
    "logarithm of the level": SPREAD | {"spread": "log"},
    "spread 0.5, R1 1": SPREAD | {"r1": 1},
    "spread 0.5, R1 10": SPREAD | {"r1": 10},
    "spread 0.5, D 64-128": SPREAD | {"d": [D_64]},
    "spread 0.5, D and an MLP": SPREAD | {"d": [D_32, MLP]},
    "spread 0.5, two D": SPREAD | {"d": [D_32, D_32]},
    "spread 0.5, last layer of 256": SPREAD | {"g": (100, 32, 64, 256, 784)},
    "spread 0.5, G 128-256-512": SPREAD | {"g": (100, 128, 256, 512, 784)},
    "spread 0.75, D 16-32": FINE | {"d": [D_16]},
    "spread 0.75, D's lr 0.006": FINE | {"d_lr": 0.006},
    "spread 0.75, batch 64, 60,000 steps": FINE | {"batch": 64, "steps": LONG},
    "best": BEST,
    "best with D 16-32": BEST | {"d": [D_16]},
    "best with D 64-128": BEST | {"d": [D_64]},
    "best with an MLP": BEST | {"d": [D_32, MLP]},
    "best with spread 0.75": FINE | {"r1": 1, "steps": LONG},
    "best with R1 3, EMA 0.9995, lr to 0.02": SPREAD | {"lr_end": 0.02, "ema": 0.9995, "seed": 1, "steps": LONG},
    "G 128-256-512 against D 64-128, spread 0.75": FINE | {"r1": 1, "g": (100, 128, 256, 512, 784), "d": [D_64], "steps": LONG},
    "best, seed 1": BEST | {"seed": 1},
    "best, seed 2": BEST | {"seed": 2},
    "best, fakes not rounded": BEST | {"rounded": False},
    "spread 0.75, D 16-32, 60,000 steps, R1 1": SETTLED | {"lr_end": 0.25, "ema": 0.999},
    "settled, D 16-32": SETTLED,
    "settled, D 32-64": SETTLED | {"d": [D_32]},
    "settled, D 16-32 of pairs": SETTLED | {"pairs": True},
    "settled, D 16-32 and an MLP": SETTLED | {"d": [D_16, MLP]},
    "settled, D 16-32 of 3 x 3, maximum of 2 x 2": SETTLED | {"d": [("max", (16, 32), 84)]},
    "settled, D 16-32, m = 4.5": SETTLED | {"m": 4.5},
    "settled, D 16-32, R1 0.3": SETTLED | {"r1": 0.3},
    "settled, D 16-32, black is 0": SETTLED | {"black": 0},
    "settled, D 16-32, feature matching": SETTLED | {"matching": 1},
    "dark": DARK | {"cap": 255},
    "dark, 250 is white": DARK,
    "dark, 240 is white": DARK | {"cap": 240},
    "dark, 250 is white, m = 4.5": DARK | {"m": 4.5},
    "dark, 250 is white, m = 6": DARK | {"m": 6},
    "dark, 250 is white, spread 0.5": DARK | {"spread": 0.5},
    "dark, 250 is white, spread 1": DARK | {"spread": 1},
    "dark, 250 is white, R1 0.3": DARK | {"r1": 0.3},
    "dark, 250 is white, D 16-32": DARK | {"d": [D_16]},
    "dark, 250 is white, D 16-32 and an MLP": DARK | {"d": [D_16, MLP]},
    "dark, 250 is white, D 16-32 and an MLP, seed 1": DARK | {"d": [D_16, MLP], "seed": 1},
    "dark, 250 is white, D 16-32 and an MLP, seed 2": DARK | {"d": [D_16, MLP], "seed": 2},
    "dark, 250 is white, D 32-64 and an MLP": DARK | {"d": [D_32, MLP]},
    "sharpened by 1": SHARP | {"sharp": 1},
    "sharpened by 2": SHARP,
    "sharpened by 4": SHARP | {"sharp": 4},
    "sharpened by 8": SHARP | {"sharp": 8},
    "sharpened by 2, R1 3": SHARP | {"r1": 3},
    "sharpened by 2, D 16-32": SHARP | {"d": [D_16]},
    "sharpened by 2, D 16-32 and an MLP": SHARP | {"d": [D_16, MLP]},
    "sharpened by 2, spread 0.5 at both ends": SHARP | {"spread": 0.5, "cap": None},
    "sharpened by 2, nothing spread": SHARP | {"spread": 0, "cap": None},
}
DEFAULTS = {
    "steps": SHORT, "batch": 128, "lr": 3e-3, "d_lr": None, "lr_end": 0.25, "cosine": False, "ema": 0.999, "seed": 0, "hinge": False,
    "d": [D_32], "g": G_SIZES, "r1": 3, "r1_end": None, "r1_every": 4, "spread": 0, "rounded": False, "shift": 0,
    "m": math.atanh(254 / 255),  # where a pixel rounds to black or white
    "cap": None, "black": -1, "sharp": 0, "pairs": False, "matching": 0,
}

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--steps", type=int, help="steps of every variant, for a short try")
ap.add_argument("--only", nargs="+", choices=list(VARIANTS), metavar="NAME", help="the variants to train; all without --models")
ap.add_argument("--models", nargs="+", default=[], help="class-conditional generators of the trainer to judge")
ap.add_argument("--ends", type=int, nargs=2, default=(0, 255), metavar=("LOW", "HIGH"),
                help="show the plain classifier and the two-sample test all images, real ones too, with levels below LOW as black and above HIGH as white")
ap.add_argument("--judges", nargs="+", default=[os.path.join(ROOT, "models", "judge.onnx")], help="files of trainer judge")
ap.add_argument("--out", help="folder for the generators' weights, as .npz files")
a = ap.parse_args()
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"  # the CPU is for a try with few steps
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def idx(name, head):
    with gzip.open(os.path.join(DATA, name + ".gz")) as file:
        return torch.tensor(np.frombuffer(file.read()[head:], np.uint8).copy()).to(DEVICE)


IMAGES, TEST_IMAGES = (idx(f"{kind}-images-idx3-ubyte", 16).reshape(-1, 784) for kind in ("train", "t10k"))
LABELS, TEST_LABELS = (idx(f"{kind}-labels-idx1-ubyte", 8).long() for kind in ("train", "t10k"))
EYE = torch.eye(10, device=DEVICE)
BY_CLASS, CLASS_SIZES = LABELS.argsort(), LABELS.bincount()
CLASS_STARTS = CLASS_SIZES.cumsum(0) - CLASS_SIZES
CROSS = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], device=DEVICE).reshape(1, 1, 3, 3) / 4


def unit(levels):
    return levels.float() / 127.5 - 1


def grey(x):
    return (x * 127.5 + 127.5).round().clamp(0, 255)


def seen(x, logit, o):
    """Images x = tanh(logit) as D sees them."""
    if o.spread == "log":
        return 2 * torch.log1p(x * 127.5 + 127.5) / math.log(256) - 1
    view = (1 - o.spread) * x + o.spread * logit.clamp(-o.m, o.m) / o.m if o.spread else x
    if o.cap:  # light levels are not spread, and those from the cap are equal
        view = torch.where(logit < 0, view, x.clamp(max=o.cap / 127.5 - 1))
    if o.sharp:  # each pixel's difference to the mean of its four neighbours is added
        image = view.reshape(-1, 1, 28, 28) + 1
        view = view + o.sharp * (image - F.conv2d(image, CROSS, padding=1)).flatten(1)
    return view + (o.black + 1)


def seen_levels(x, o):
    return seen(x, torch.atanh(x), o)


class Generator(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, sizes[1:]))
        self.layers[-1].bias.data = torch.atanh(unit(IMAGES).mean(0).clamp(-0.999, 0.999)).cpu()

    def logits(self, z):
        for layer in self.layers[:-1]:
            z = F.leaky_relu(layer(z), 0.2)
        return self.layers[-1](z)


class Discriminator(nn.Module):
    """Convolutions of a kind, then dense layers: a logit for each class."""

    def __init__(self, kind, maps, widths, images=1):
        super().__init__()
        kernel, stride, padding = {"conv4": (4, 2, 1), "conv5": (5, 2, 2)}.get(kind, (3, 1, 1))
        self.pool = {"mean": F.avg_pool2d, "max": F.max_pool2d}.get(kind)
        self.images = images  # that it judges together, as its channels
        maps = (images, *maps)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, kernel, stride, padding) for i, o in zip(maps, maps[1:]))
        side = 28 >> (len(maps) - 1)
        widths = (maps[-1] * side * side, *(widths if isinstance(widths, tuple) else (widths,)))
        self.dense = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, widths[1:]))
        self.last = nn.Linear(widths[-1], 10)

    def forward(self, x, labels):
        x = x.reshape(-1, self.images, 28, 28)
        for layer in self.convolutions:
            x = F.leaky_relu(layer(x), 0.2)
            x = self.pool(x, 2) if self.pool else x
        x = x.flatten(1)
        for layer in self.dense:
            x = F.leaky_relu(layer(x), 0.2)
        self.features = x
        return self.last(x).gather(1, labels[:: self.images, None])[:, 0]


def latents(labels, rng):
    z = torch.rand(len(labels), 100, device=DEVICE, generator=rng) * 2 - 1
    return torch.cat([EYE[labels], z[:, 10:]], 1)


class Captured:
    """Work in steps on a stream of its own. After eight steps each kind of step is a CUDA graph."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.rng = torch.Generator(DEVICE).manual_seed(seed)
        self.stream, self.graphs, self.done = torch.cuda.Stream() if CUDA else None, {}, 0

    def adam(self, parameters, lr, betas):
        return torch.optim.Adam(parameters, lr, betas, fused=CUDA, capturable=CUDA)

    def take(self, kind):
        if not CUDA or self.done < 8:
            self.step(kind)
        else:
            if kind not in self.graphs:
                torch.cuda.synchronize()
                self.graphs[kind] = torch.cuda.CUDAGraph()
                self.graphs[kind].register_generator_state(self.rng)
                with torch.cuda.graph(self.graphs[kind], stream=self.stream):
                    self.step(kind)
            self.graphs[kind].replay()
        self.done += 1


class Run(Captured):
    """The training of a variant."""

    def __init__(self, name):
        self.name, self.o = name, argparse.Namespace(**DEFAULTS | VARIANTS[name])
        o = self.o
        self.steps = a.steps or o.steps
        super().__init__(o.seed)
        self.g = Generator(o.g).to(DEVICE)
        self.average = copy.deepcopy(self.g)
        self.d = nn.ModuleList(Discriminator(*d, images=1 + o.pairs) for d in o.d).to(DEVICE)
        self.t = torch.zeros((), device=DEVICE)
        self.g_lr, self.d_lr = (torch.zeros((), device=DEVICE) for _ in range(2))
        self.g_adam = self.adam(self.g.parameters(), self.g_lr, (0.5, 0.99))
        self.d_adam = self.adam(self.d.parameters(), self.d_lr, (0.5, 0.99))

    def next(self):
        self.take(self.done % self.o.r1_every == 0)

    def logits(self, x, labels):
        return [d(x, labels) for d in self.d]

    def shifted(self, x):
        """Each image moved by up to o.shift pixels."""
        pixels, n = self.o.shift, len(x)
        x = F.pad(x.reshape(n, 28, 28), (pixels,) * 4, value=self.o.black)
        by = torch.randint(0, 2 * pixels + 1, (n, 2), device=DEVICE, generator=self.rng)
        at = torch.arange(28, device=DEVICE)
        rows, columns = at[None, :, None] + by[:, :1, None], at[None, None, :] + by[:, 1:, None]
        return x[torch.arange(n, device=DEVICE)[:, None, None], rows, columns].reshape(n, 784)

    def step(self, with_r1):
        o, done = self.o, self.t / self.steps
        fall = 0.5 * (1 + torch.cos(math.pi * done)) if o.cosine else 1 - done
        for lr, start in ((self.g_lr, o.lr), (self.d_lr, o.d_lr or o.lr)):
            lr.copy_(start * (o.lr_end + (1 - o.lr_end) * fall))
        gamma = o.r1 * torch.exp(math.log(o.r1_end / o.r1) * done) if o.r1_end else o.r1
        chosen, fake_labels = (torch.randint(0, n, (o.batch,), device=DEVICE, generator=self.rng) for n in (len(IMAGES), 10))
        labels = LABELS[chosen]
        if o.pairs:  # of one class. Source: Lin et al. 2018, PacGAN
            labels, fake_labels = (x[::2].repeat_interleave(2) for x in (labels, fake_labels))
            share = torch.rand(o.batch, device=DEVICE, generator=self.rng)
            chosen = BY_CLASS[CLASS_STARTS[labels] + (share * CLASS_SIZES[labels]).long()]
        logit = self.g.logits(latents(fake_labels, self.rng))
        real, image = seen_levels(unit(IMAGES[chosen]), o), torch.tanh(logit)
        fake = seen(image, logit, o)
        if o.rounded:  # with the gradient of what is not
            fake = fake + (seen_levels(unit(grey(image)), o) - fake).detach()
        if o.shift:
            real, fake = self.shifted(real), self.shifted(fake)
        for_d = fake.detach()
        if with_r1:
            real.requires_grad_()
            on_real, on_fake = self.logits(real, labels), self.logits(for_d, fake_labels)
            slope, = torch.autograd.grad(sum(x.sum() for x in on_real), real, create_graph=True)
            penalty = gamma / 2 * o.r1_every * slope.square().sum(1).mean()
        else:
            both = self.logits(torch.cat([real, for_d]), torch.cat([labels, fake_labels]))
            on_real, on_fake = zip(*(x.chunk(2) for x in both))
            penalty = 0
        loss = (lambda x: F.relu(1 - x).mean()) if o.hinge else (lambda x: F.softplus(-x).mean())
        self.update(self.d, self.d_adam, sum(loss(x) for x in on_real) + sum(loss(-x) for x in on_fake) + penalty)
        on_fake = self.logits(fake, fake_labels)
        g_loss = sum(-x.mean() if o.hinge else loss(x) for x in on_fake)
        if o.matching:  # D's mean features. Source: Salimans et al. 2016
            of_fake = [d.features.mean(0) for d in self.d]
            self.logits(real, labels)
            g_loss = g_loss + o.matching * sum((a - d.features.mean(0).detach()).square().sum() for a, d in zip(of_fake, self.d))
        self.update(self.g, self.g_adam, g_loss)
        with torch.no_grad():
            rate = torch.clamp(9 / (self.t + 10), 1 - o.ema, 1.0)
            for average, new in zip(self.average.parameters(), self.g.parameters()):
                average += rate * (new - average)
            self.t += 1

    def update(self, network, adam, loss):
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        for parameter, gradient in zip(network.parameters(), gradients):
            parameter.grad = gradient.contiguous()
        adam.step()


class Classifier(Captured):
    """A classifier of images in training: two convolutions of 3 x 3 with ReLU and a maximum of 2 x 2, then dense layers."""

    # Level of black, hidden dense widths, batch, Adam's step size, share of the steps in which it rises, whether it falls to 0. The
    # classifier `plain` has PyTorch's initial weights, the others He's; `test` is the two-sample test of trainer score --full.
    KINDS = {"plain": (-1, (), 128, 1e-3, 0, False), "test": (0, (84,), 32, 2e-3, 0.03, True), "score": (0, (84,), 64, 3e-3, 0, True)}

    def __init__(self, kind, images, labels, classes, epochs):
        super().__init__(0)
        self.images, self.labels = images, labels
        self.black, hidden, self.batch, self.most_lr, self.warm_up, self.falls = self.KINDS[kind]
        self.per_epoch = len(images) // self.batch
        self.steps = a.steps or epochs * self.per_epoch
        widths = (1568, *hidden, classes)
        self.convolutions = nn.ModuleList([nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)])
        self.dense = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, widths[1:]))
        self.network = nn.ModuleList([self.convolutions, self.dense]).to(DEVICE)
        for layer in [] if kind == "plain" else [*self.convolutions, *self.dense]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.lr = torch.zeros((), device=DEVICE)
        self.optimizer = self.adam(self.network.parameters(), self.lr, (0.9, 0.999))
        self.chosen = torch.zeros(self.batch, dtype=torch.long, device=DEVICE)

    def forward(self, images):
        x = images.reshape(-1, 1, 28, 28).float() / 127.5 + self.black
        for layer in self.convolutions:
            x = F.max_pool2d(F.relu(layer(x)), 2)
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = F.relu(layer(x))
        return self.dense[-1](x)

    def next(self):
        i = self.done % self.per_epoch
        if i == 0:
            self.order = torch.randperm(len(self.images), generator=self.rng, device=DEVICE)
        done = self.done / self.steps
        rise = min(1, (done + 1 / self.steps) / self.warm_up) if self.warm_up else 1
        self.lr.fill_(self.most_lr * rise * (1 - done if self.falls else 1))
        self.chosen.copy_(self.order[i * self.batch : (i + 1) * self.batch])
        self.take(None)

    def step(self, _):
        loss = F.cross_entropy(self.forward(self.images[self.chosen]), self.labels[self.chosen])
        for parameter, gradient in zip(self.network.parameters(), torch.autograd.grad(loss, list(self.network.parameters()))):
            parameter.grad = gradient
        self.optimizer.step()

    @torch.no_grad()
    def logits(self, images):
        return torch.cat([self.forward(x) for x in images.split(5000)])


def work(jobs):
    """All jobs in turns, so that the GPU runs them side by side."""
    if CUDA:
        torch.cuda.synchronize()  # what the jobs start from is made on another stream
    rounds = max(job.steps for job in jobs)
    for i in range(rounds):
        for job in jobs:
            if job.done < job.steps:
                if CUDA:
                    with torch.cuda.stream(job.stream):
                        job.next()
                else:
                    job.next()
        if CUDA and i % 100 == 0:
            torch.cuda.synchronize()  # the queue stays short
    if CUDA:
        torch.cuda.synchronize()


@torch.no_grad()
def draw(g, n, seed):
    """Images of n digits, as many of each class, with their classes."""
    rng, labels = torch.Generator(DEVICE).manual_seed(seed), torch.arange(n, device=DEVICE) % 10
    return torch.cat([grey(torch.tanh(g.logits(latents(x, rng)))).byte() for x in labels.split(10_000)]), labels


def judge(path):
    """A function from images to a judge's features and classes."""
    w = {x.name: torch.tensor(onnx.numpy_helper.to_array(x)).to(DEVICE) for x in onnx.load(path).graph.initializer}
    dense = sorted(name[:-7] for name in w if name.startswith("fc") and name.endswith("weight"))

    @torch.no_grad()
    def features(images):
        x = unit(images).reshape(-1, 1, 28, 28)
        for name, padding in (("conv1", w["conv1.weight"].shape[2] // 2), ("conv2", 0)):
            x = F.max_pool2d(F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)), 2)
        x = x.flatten(1)
        for name in dense[:-1]:
            x = F.relu(x @ w[f"{name}.weight"] + w[f"{name}.bias"])
        return x.double(), (x @ w[f"{dense[-1]}.weight"] + w[f"{dense[-1]}.bias"]).argmax(1)

    return features


def ends(images):
    low, high = a.ends
    return torch.where(images < low, 0, torch.where(images > high, 255, images))


def frechet_distance(a, b):
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), torch.cov(x.T)) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def recall(drawn, test, k=3):
    """The share of test features that are within the distance of a drawn one's k-th neighbour. Source: Kynkaanniemi et al. 2019."""
    radius = torch.cat([torch.cdist(x, drawn).topk(k + 1, largest=False).values[:, -1] for x in drawn.split(2000)])
    return torch.cat([(torch.cdist(x, drawn) <= radius).any(1) for x in test.split(2000)]).float().mean()


def row(name, g, classifiers):
    """A row of search.md."""
    drawn, labels = draw(g, 10_000, 99)
    features = [(features_of(drawn), of_test) for features_of, of_test in JUDGES]
    distances = " / ".join(f"{frechet_distance(ours[0], theirs[0]):.2f}" for ours, theirs in features)
    accuracy = (features[0][0][1] == labels).float().mean()
    found = recall(*(kind[0] for kind in features[0]))
    dark = ((drawn > 0) & (drawn < 6)).float().mean()
    held_out, _ = draw(g, 10_000, 1002)
    figures = []
    for test in classifiers[:2]:
        on_real, on_drawn = ((x[:, 1] - x[:, 0]) for x in (test.logits(ends(TEST_IMAGES)), test.logits(ends(held_out))))
        told_apart = ((on_real < 0).float().mean() + (on_drawn > 0).float().mean()) / 2
        figures.append(f"{100 * told_apart:.1f} %, {100 * (on_drawn < 0).float().mean():.1f} %")
    accuracy_score = (classifiers[2].logits(TEST_IMAGES).argmax(1) == TEST_LABELS).float().mean()
    return (f"| {name} | {distances} | {found:.2f} | {100 * accuracy:.1f} % | {100 * accuracy_score:.1f} % | {' | '.join(figures)} |"
            f" {100 * dark:.1f} % |")


def print_rows(generators):
    """The row of each (name, generator)."""
    judged = []
    for _, g in generators:
        drawn, labels = draw(g, 60_000, 1001)
        both, real_or_drawn = ends(torch.cat([IMAGES, drawn])), (torch.arange(120_000, device=DEVICE) >= 60_000).long()
        tests = [Classifier(kind, both, real_or_drawn, 2, epochs=3) for kind in ("plain", "test")]
        judged.append([*tests, Classifier("score", drawn, labels, 10, epochs=5)])
    work([classifier for classifiers in judged for classifier in classifiers])
    for (name, g), classifiers in zip(generators, judged):
        print(row(name, g, classifiers), flush=True)


def loaded(path):
    """The generator of an ONNX file of the trainer, whose dense weights are (I, O)."""
    w = {x.name: torch.tensor(onnx.numpy_helper.to_array(x)) for x in onnx.load(path).graph.initializer}
    g = Generator(G_SIZES)
    for i, layer in enumerate(g.layers, 1):
        layer.weight.data, layer.bias.data = w[f"fc{i}.weight"].T.contiguous(), w[f"fc{i}.bias"]
    return g.to(DEVICE)


JUDGES = [(features_of, features_of(TEST_IMAGES)) for features_of in map(judge, a.judges)]
if a.models:
    print_rows([(path, loaded(path)) for path in a.models])
if a.out:
    os.makedirs(a.out, exist_ok=True)
names = a.only or ([] if a.models else list(VARIANTS))
for first in range(0, len(names), 8):
    runs, start = [Run(name) for name in names[first : first + 8]], time.time()
    work(runs)
    print(f"{len(runs)} runs: {time.time() - start:.0f} s", flush=True)
    if a.out:
        for run in runs:
            weights = {name: x.detach().cpu().numpy() for name, x in run.average.named_parameters()}
            np.savez(os.path.join(a.out, f"{run.name}.npz"), **weights)
    print_rows([(run.name, run.average) for run in runs])
