#!/usr/bin/env python3
"""Milliseconds a training step of the seed recipe by PyTorch on a GPU, and what launching costs there; tests/gpu calls this.

    gpu_peers.py eager|graph --data DIR --steps N [--tf32]    seed_gan.py's loop, data on the device; as it is, or captured
    gpu_peers.py floor                                        a tiny kernel's share of a replayed CUDA graph of a thousand

Prints `ms_per_step X`, the mean over N steps between two synchronisations.
"""
import argparse, os, sys, time
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
from seed_gan import BATCH, D_SIZES, G_SIZES, LR, Z, bce, forward, idx, init, masks_for

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("peer", choices=["eager", "graph", "floor"])
ap.add_argument("--data")
ap.add_argument("--steps", type=int, default=2000)
ap.add_argument("--tf32", action="store_true")
ap.add_argument("--device", default="cuda")
a = ap.parse_args()
torch.set_default_device(a.device)
torch.backends.cuda.matmul.allow_tf32 = a.tf32


def captured(step, times=1):
    """`step`, `times` over, as a CUDA graph; PyTorch wants it to have run on a stream of its own before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            step()
    return graph.replay


def per_call(call, calls):
    """Seconds that a call takes, the last one's work on the device included."""
    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None
    for _ in range(20):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def training_step():
    """The picked rows, to be filled before a step, and the step of seed_gan.py."""
    images = torch.from_numpy(idx(os.path.join(a.data, "train-images-idx3-ubyte")).copy()).to(a.device).float() / 255
    d, g = init(D_SIZES), init(G_SIZES)
    adam = [torch.optim.Adam(net, lr=LR, capturable=a.peer == "graph") for net in (d, g)]
    pick = torch.zeros(BATCH, dtype=torch.int64)
    uniform = lambda: torch.rand(BATCH, Z) * 2 - 1

    def step():
        real = images[pick] * 2 - 1
        adam[0].zero_grad()
        fake = forward(g, uniform(), masks_for(G_SIZES, BATCH), True).detach()
        on_real = forward(d, real, masks_for(D_SIZES, BATCH), False)
        (bce(on_real, 0.9) + bce(forward(d, fake, masks_for(D_SIZES, BATCH), False), 0.0)).backward()
        adam[0].step()
        adam[1].zero_grad()
        fake = forward(g, uniform(), masks_for(G_SIZES, BATCH), True)
        bce(forward(d, fake, masks_for(D_SIZES, BATCH), False), 1.0).backward()
        adam[1].step()
    order = torch.randperm(len(images))
    return pick, order, step


if a.peer == "floor":
    one, kernels = torch.zeros(1), 1000
    seconds = per_call(captured(lambda: one.zero_(), kernels), 200) / kernels
else:
    pick, order, step = training_step()
    run, at = captured(step) if a.peer == "graph" else step, 0

    def call():
        global at
        pick.copy_(order[at:at + BATCH])
        at = (at + BATCH) % (len(order) - BATCH)
        run()
    seconds = per_call(call, a.steps)
print(f"ms_per_step {1e3 * seconds:.5f}")
