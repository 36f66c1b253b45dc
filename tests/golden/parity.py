#!/usr/bin/env python3
"""Makes parity.json and parity.i16.gz: what PyTorch computes in the first steps of the seed recipe.

    parity.py --data DIR        (needs torch and numpy)

Runs seed_gan.py --golden. Its inputs are not stored: PyTorch draws them from a Mersenne twister, which the test draws
from again. parity.json holds the seed and the losses of the first 20 steps; parity.i16.gz holds, in units of 1e-7, how
far the first step moved each parameter: discriminator, then generator, weight and bias of each layer, weights (O, I).

The seed is the one of 0 to 9 at which PyTorch agrees best with itself when its initial parameters are moved by one part
in 10^7. At some seeds a unit stands so near to LeakyReLU's kink that such a nudge takes it to the other side, and the
losses part by 1e-2 within 20 steps: a comparison there would say nothing about an implementation.
"""
import argparse, gzip, json, os, subprocess, sys, tempfile
import numpy as np
import torch

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "peers"))
import seed_gan as peer

STEPS, NUDGE = 20, 1e-7


def golden(data, seed, steps):
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "golden.npz")
        subprocess.check_call([sys.executable, peer.__file__, "--data", data, "--seed", str(seed), "--steps", str(steps),
                               "--golden", out], stdout=subprocess.DEVNULL)
        return dict(np.load(out))


def replay(log, nudge):
    """The losses (STEPS, 2) of the logged run, from parameters nudged at random."""
    t = lambda key: torch.tensor(log[key])
    start = lambda key: (t(key) * (1 + nudge * torch.randn(log[key].shape))).requires_grad_()
    d, g = ([start(f"init.{net}.{i}") for i in range(8)] for net in "dg")
    adam_d, adam_g = (torch.optim.Adam(p, lr=peer.LR) for p in (d, g))
    losses = []
    for s in range(STEPS):
        masks = lambda key: [t(f"step.{s}.{key}.{j}") for j in range(3)]
        fake = peer.forward(g, t(f"step.{s}.z_d"), masks("g_d"), True).detach()
        d_loss = (peer.bce(peer.forward(d, t(f"step.{s}.real"), masks("m_real"), False), 0.9)
                  + peer.bce(peer.forward(d, fake, masks("m_fake"), False), 0.0))
        adam_d.zero_grad(), d_loss.backward(), adam_d.step()
        fake = peer.forward(g, t(f"step.{s}.z_g"), masks("g_g"), True)
        g_loss = peer.bce(peer.forward(d, fake, masks("m_gen"), False), 1.0)
        adam_g.zero_grad(), g_loss.backward(), adam_g.step()
        losses.append((d_loss.item(), g_loss.item()))
    return np.array(losses)


ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--data", required=True)
data = ap.parse_args().data

best = None
for seed in range(10):
    log = golden(data, seed, STEPS)
    torch.manual_seed(99)
    parted = max(np.abs(replay(log, NUDGE) - replay(log, 0)).max() for _ in range(4))
    print(f"seed {seed}: nudged runs part by {parted:.1e}", flush=True)
    if best is None or parted < best[0]:
        best = parted, seed, log
parted, seed, log = best

losses = {k: [float(log[f"step.{s}.{k}"]) for s in range(STEPS)] for k in ("d_loss", "g_loss")}
with open(os.path.join(here, "parity.json"), "w") as f:
    json.dump({"made_by": "parity.py", "torch": torch.__version__, "seed": seed, "nudged": parted, **losses}, f, indent=1)
    f.write("\n")
log = golden(data, seed, 1)
moved = np.concatenate([(log[f"final.{n}.{i}"].astype(np.float64) - log[f"init.{n}.{i}"]).ravel() for n in "dg" for i in range(8)])
with open(os.path.join(here, "parity.i16.gz"), "wb") as f:
    f.write(gzip.compress(np.rint(moved * 1e7).astype("<i2").tobytes(), 9, mtime=0))
