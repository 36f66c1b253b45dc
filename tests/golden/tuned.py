#!/usr/bin/env python3
"""Makes tuned.json: the gradients of the tuned recipe's first step, R1 by PyTorch's double backward.

    tuned.py        (needs torch)

All inputs are made of noise(j, n), which the test makes again. Of each parameter's gradient it keeps the norm and 16
elements; weights are (I, O), as in the step graph. The moving average starts at the parameters, and all z share a digit
with their images, for what is tested is the arithmetic.
"""
import json, math, os
import torch
import torch.nn.functional as F

B, D, G, SLOPE = 8, [784, 256, 128, 10], [100, 32, 64, 128, 784], 0.2
R1, R1_EVERY = 0.3, 4


def noise(j, n):
    """n numbers in [-1, 1), multiples of 2^-15."""
    i = torch.arange(n, dtype=torch.int64)
    x = (i * 40503 + j * 9973 + (i * i % 65521) * 31) % 65536
    return (x.double() / 32768 - 1).float()


def params(sizes, first):
    made = []
    for i, o in zip(sizes, sizes[1:]):
        for shape in ((i, o), (o,)):
            p = noise(first + len(made), math.prod(shape)) / math.sqrt(i)
            made.append(p.reshape(shape).requires_grad_())
    return made


def mlp(p, x):
    for k in range(0, len(p), 2):
        x = x @ p[k] + p[k + 1]
        x = F.leaky_relu(x, SLOPE) if k + 2 < len(p) else x
    return x


d, g = params(D, 100), params(G, 200)
real = torch.round((noise(1, B * 784) + 1) * 127) .reshape(B, 784) / 127.5 - 1
eye = torch.eye(10)
c = eye[torch.arange(B) % 10]
z = noise(2, B * 100).reshape(B, 100)
z = torch.cat([c, z[:, 10:]], 1)
logit = lambda x: (mlp(d, x) * c).sum(1)
fake = torch.tanh(mlp(g, z))
real.requires_grad_()
on_real = logit(real)
slope, = torch.autograd.grad(on_real.sum(), real, create_graph=True)
d_loss = F.softplus(-on_real).mean() + F.softplus(logit(fake.detach())).mean()
penalty = slope.square().sum(1).mean()
d_grad = torch.autograd.grad(d_loss + R1 * R1_EVERY / 2 * penalty, d)


def kept(grad):
    flat = grad.flatten().double()
    return {"norm": flat.norm().item(), "some": flat[:: max(1, len(flat) // 16)][:16].tolist()}


out = {"d_loss": d_loss.item(), "penalty": penalty.item(), "d_grad": [kept(x) for x in d_grad]}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tuned.json"), "w") as f:
    json.dump(out, f, indent=1)
print(out["d_loss"], out["penalty"])
