#!/usr/bin/env python3
"""Makes gradients.json: the gradients of one training step by PyTorch, R1's by its double backward.

    gradients.py        (needs torch)

`tuned` is the tuned recipe; `convolutional` has a discriminator with convolutions, and `spread` one that sees spread grey levels too.

All inputs are made of noise(j, n), which the test makes again. Of each parameter's gradient it keeps the norm and 16
elements. Weights are stored as in the step graph: (I, O) for a dense layer; (16 I, O) for a convolution, where the rows have the
axes block row, block column, row in the block, column in the block, map, for the 2 x 2 blocks of 2 x 2 pixels of a patch.
"""
import json, math, os
import torch
import torch.nn.functional as F

B, G, SLOPE = 8, [100, 32, 64, 128, 784], 0.2
R1, R1_EVERY, LR, BETAS = 0.3, 4, 3e-3, (0.5, 0.99)


def noise(j, n):
    """n numbers in [-1, 1), multiples of 2^-15."""
    i = torch.arange(n, dtype=torch.int64)
    x = (i * 40503 + j * 9973 + (i * i % 65521) * 31) % 65536
    return (x.double() / 32768 - 1).float()


def params(sizes, first):
    """Weights (I, O) and biases (O,) of layers with these pairs (I, O)."""
    made = []
    for i, o in sizes:
        for shape in ((i, o), (o,)):
            p = noise(first + len(made), math.prod(shape)) / math.sqrt(i)
            made.append(p.reshape(shape).requires_grad_())
    return made


def pairs(sizes):
    return list(zip(sizes, sizes[1:]))


def mlp(p, x):
    for k in range(0, len(p), 2):
        x = x @ p[k] + p[k + 1]
        x = F.leaky_relu(x, SLOPE) if k + 2 < len(p) else x
    return x


def discriminate(p, convolutions, x):
    x = x.reshape(-1, 1, 28, 28)
    for k in range(0, 2 * convolutions, 2):
        w = p[k].reshape(2, 2, 2, 2, -1, p[k].shape[1]).permute(5, 4, 0, 2, 1, 3).reshape(p[k].shape[1], -1, 4, 4)
        x = F.leaky_relu(F.conv2d(x, w, p[k + 1], stride=2, padding=1), SLOPE)
    return mlp(p[2 * convolutions :], x.permute(0, 2, 3, 1).flatten(1))


def seen(x, logit, spread):
    """An image x = tanh(logit) as D sees it."""
    most = math.atanh(254 / 255)
    return (1 - spread) * x + spread * logit.clamp(-most, most) / most


def kept(grad):
    flat = grad.flatten().double()
    return {"norm": flat.norm().item(), "some": flat[:: max(1, len(flat) // 16)][:16].tolist()}


def step(d_conv, d_hidden, spread=0):
    maps = pairs([1, *d_conv])
    side = 28 >> len(d_conv)
    dense = pairs([side * side * maps[-1][1] if maps else 784, *d_hidden, 10])
    d, g = params([(16 * i, o) for i, o in maps] + dense, 100), params(pairs(G), 200)
    real = torch.round((noise(1, B * 784) + 1) * 127).reshape(B, 784) / 127.5 - 1
    c = torch.eye(10)[torch.arange(B) % 10]
    z = noise(2, B * 100).reshape(B, 100)
    z = torch.cat([c, z[:, 10:]], 1)
    logit = lambda x: (discriminate(d, len(d_conv), x) * c).sum(1)
    logits = mlp(g, z)
    fake = seen(torch.tanh(logits), logits, spread)
    real = seen(real, torch.atanh(real.double()).float(), spread).requires_grad_()
    on_real = logit(real)
    slope, = torch.autograd.grad(on_real.sum(), real, create_graph=True)
    d_loss = F.softplus(-on_real).mean() + F.softplus(logit(fake.detach())).mean()
    penalty = slope.square().sum(1).mean()
    d_grad = torch.autograd.grad(d_loss + R1 * R1_EVERY / 2 * penalty, d)
    adam = torch.optim.Adam(d, LR, BETAS)
    for p, grad in zip(d, d_grad):
        p.grad = grad
    adam.step()
    g_loss = F.softplus(-logit(fake)).mean()
    g_grad = torch.autograd.grad(g_loss, g)
    losses = {"d_loss": d_loss.item(), "g_loss": g_loss.item()}
    return losses | {"d_grad": [kept(x) for x in d_grad], "g_grad": [kept(x) for x in g_grad]}


out = {"tuned": step([], [256, 128]), "convolutional": step([8, 12], [32]), "spread": step([8, 12], [32], 0.4)}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "gradients.json"), "w") as f:
    json.dump(out, f, indent=1)
print({name: (of["d_loss"], of["g_loss"]) for name, of in out.items()})
