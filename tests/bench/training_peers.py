#!/usr/bin/env python3
"""Milliseconds a training step of the seed recipe by torch.compile or JAX; training.py calls this.

    training_peers.py compile|jax|jax-given --threads N --steps N

Data of noise. jax-given is given its random numbers, which the others draw in the time that is measured. Prints the median.
"""
import argparse, math, os, statistics, time

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("peer", choices=["compile", "jax", "jax-given"])
ap.add_argument("--threads", type=int, required=True)
ap.add_argument("--steps", type=int, required=True)
a = ap.parse_args()
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])  # JAX has no other way to be told
BATCH, D, G, WARM_UP = 64, [784, 128, 64, 32, 1], [100, 32, 64, 128, 784], 20


def torch_compile():
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(a.threads)

    def net(sizes, *last):
        hidden = [layer for i, o in zip(sizes[:-2], sizes[1:-1]) for layer in (torch.nn.Linear(i, o), torch.nn.LeakyReLU(0.2), torch.nn.Dropout(0.2))]
        return torch.nn.Sequential(*hidden, torch.nn.Linear(*sizes[-2:]), *last)

    d, g = net(D), net(G, torch.nn.Tanh())
    adam_d, adam_g = (torch.optim.Adam(net.parameters(), lr=2e-3, fused=True) for net in (d, g))
    bce = lambda logits, target: F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
    d_loss = torch.compile(lambda real, z: bce(d(real), 0.9) + bce(d(g(z).detach()), 0.0))
    g_loss = torch.compile(lambda z: bce(d(g(z)), 1.0))
    images = torch.rand(6000, 784) * 2 - 1

    def step():
        real = images[torch.randint(6000, (BATCH,))]
        adam_d.zero_grad()
        d_loss(real, torch.rand(BATCH, 100) * 2 - 1).backward()
        adam_d.step()
        adam_g.zero_grad()
        g_loss(torch.rand(BATCH, 100) * 2 - 1).backward()
        adam_g.step()
    return step


def jax_jit():
    import jax
    import jax.numpy as jnp
    import numpy as np
    rng = np.random.default_rng(0)

    def init(sizes):
        bound = lambda i: 1 / math.sqrt(i)
        return [(rng.uniform(-bound(i), bound(i), (i, o)).astype("f"), rng.uniform(-bound(i), bound(i), o).astype("f")) for i, o in zip(sizes, sizes[1:])]

    def forward(net, x, masks):
        for (w, b), keep in zip(net[:-1], masks):
            x = jax.nn.leaky_relu(x @ w + b, 0.2) * keep / 0.8
        return x @ net[-1][0] + net[-1][1]

    bce = lambda logits, target: jnp.mean(jax.nn.softplus(logits) - logits * target)
    generate = lambda g, z, masks: jnp.tanh(forward(g, z, masks))

    def adam(theta, m, v, grad, t):
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad * grad
        return theta - 2e-3 * m / (1 - 0.9 ** t) / (jnp.sqrt(v / (1 - 0.999 ** t)) + 1e-8), m, v

    def update(net, m, v, grad, t):
        new = jax.tree.map(lambda *x: adam(*x, t), net, m, v, grad)
        pick = lambda i: jax.tree.map(lambda x: x[i], new, is_leaf=lambda x: isinstance(x, tuple) and len(x) == 3)
        return pick(0), pick(1), pick(2)

    def d_loss(d, g, real, z, on_real, on_fake, masks):
        fake = jax.lax.stop_gradient(generate(g, z, masks))
        return bce(forward(d, real, on_real), 0.9) + bce(forward(d, fake, on_fake), 0.0)

    def g_loss(g, d, z, masks, on_fake):
        return bce(forward(d, generate(g, z, masks), on_fake), 1.0)

    def draw(key):
        keys = iter(jax.random.split(key, 1 + 5 * 3))
        z = jax.random.uniform(next(keys), (2, BATCH, 100), minval=-1, maxval=1)
        return z, [[jax.random.bernoulli(next(keys), 0.8, (BATCH, n)) for n in sizes[1:-1]] for sizes in (D, D, G, G, D)]

    def one(state, images, pick, given):
        (d, md, vd), (g, mg, vg), t = state
        t = t + 1
        z, masks = given or draw(jax.random.fold_in(jax.random.key(0), t.astype("i")))
        masks = [[m.astype("f") for m in net] for net in masks]
        loss_d, grad = jax.value_and_grad(d_loss)(d, g, images[pick], z[0], *masks[:3])
        d, md, vd = update(d, md, vd, grad, t)
        loss_g, grad = jax.value_and_grad(g_loss)(g, d, z[1], masks[3], masks[4])
        g, mg, vg = update(g, mg, vg, grad, t)
        return ((d, md, vd), (g, mg, vg), t), loss_d, loss_g

    zeros = lambda net: jax.tree.map(np.zeros_like, net)
    d, g = init(D), init(G)
    state = [((d, zeros(d), zeros(d)), (g, zeros(g), zeros(g)), np.float32(0))]
    images = jnp.asarray(rng.uniform(-1, 1, (6000, 784)).astype("f"))
    pick = rng.integers(0, 6000, BATCH)
    given = jax.device_get(draw(jax.random.key(0))) if a.peer == "jax-given" else None
    jitted = jax.jit(one, donate_argnums=0)

    def step():
        state[0], *losses = jitted(state[0], images, pick, given)
        assert all(math.isfinite(loss) for loss in losses)
    return step


step = torch_compile() if a.peer == "compile" else jax_jit()
times = []
for _ in range(a.steps + WARM_UP):
    start = time.perf_counter()
    step()
    times.append(time.perf_counter() - start)
print("ms_per_step", 1e3 * statistics.median(times[WARM_UP:]))
