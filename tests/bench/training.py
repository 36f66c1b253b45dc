#!/usr/bin/env python3
"""Milliseconds a training step, ours and PyTorch's, in turns on this machine.

    tests/bench/training.py [--rounds 5] [--steps 400]

Sets itself up: builds the trainer, and installs PyTorch into .venv-bench. Prints, for one thread and for two, the median
over the rounds, and the median of the ratios within a round.
"""
import argparse, json, os, statistics, subprocess, sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
VENV = os.path.join(ROOT, ".venv-bench")
PYTHON = os.path.join(VENV, "bin", "python")
DATA = os.environ.get("MNIST_DIR", os.path.join(ROOT, "..", "shared", "data", "mnist"))


def set_up():
    if not os.path.exists(PYTHON):
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
    subprocess.check_call([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "torch==2.15.0", "numpy==2.4.6"])
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "-p", "trainer"], cwd=ROOT)


def ours(threads, steps):
    trainer = os.path.join(ROOT, "target", "release", "trainer")
    out = subprocess.check_output([trainer, "bench", "--json", "--device", "cpu", "--threads", str(threads), "--steps", str(steps)],
                                  stderr=subprocess.DEVNULL)
    return json.loads(out)


def pytorch(threads, steps):
    script = os.path.join(ROOT, "tests", "peers", "seed_gan.py")
    out = subprocess.check_output([PYTHON, script, "--data", DATA, "--steps", str(steps), "--time", "--literal",
                                   "--threads", str(threads)], text=True)
    return float(out.split()[-1])


ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--steps", type=int, default=400)
a = ap.parse_args()
set_up()
print("threads  ours ms  PyTorch eager ms  ratio  share of the matrix-product peak")
for threads in (1, 2):
    rounds = [(ours(threads, a.steps), pytorch(threads, a.steps)) for _ in range(a.rounds)]
    median = lambda value: statistics.median(value(o, p) for o, p in rounds)
    print(f"{threads:7}  {median(lambda o, p: o['step_ms']):7.2f}  {median(lambda o, p: p):16.2f}"
          f"  {median(lambda o, p: p / o['step_ms']):5.2f}  {median(lambda o, p: o['floor_ms'] / o['step_ms']):.0%}", flush=True)
