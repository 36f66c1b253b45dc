#!/usr/bin/env python3
"""Milliseconds a training step of the seed recipe: ours, PyTorch eager, torch.compile, JAX, burn and candle, in turns.

    tests/bench/training.py [--rounds 5] [--steps 400] [--threads 1 2]

Sets itself up: builds the trainer and tests/bench/peers, and installs PyTorch and JAX into .venv-bench. Prints, for one thread
and for two, medians over the rounds, and medians of the ratios within a round. For one thread all run on one core, so that
nobody has a second one for helpers of its own.
"""
import argparse, json, os, statistics, subprocess, sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
VENV = os.path.join(ROOT, ".venv-bench")
PYTHON = os.path.join(VENV, "bin", "python")
TARGET = os.path.join(ROOT, "target", "bench")
DATA = os.environ.get("MNIST_DIR", os.path.join(ROOT, "..", "shared", "data", "mnist"))


def set_up():
    if not os.path.exists(PYTHON):
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
    subprocess.check_call([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "torch==2.15.0", "numpy==2.4.6", "jax==0.10.2"])
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "-p", "trainer"], cwd=ROOT)
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "--bin", "training", "--manifest-path",
                           os.path.join(ROOT, "tests", "bench", "peers", "Cargo.toml"), "--target-dir", TARGET])


def ours(threads, steps):
    trainer = os.path.join(ROOT, "target", "release", "trainer")
    out = subprocess.check_output([trainer, "bench", "--json", "--device", "cpu", "--threads", str(threads), "--steps", str(steps)],
                                  stderr=subprocess.DEVNULL)
    return json.loads(out)


def ms(command, **more):
    return float(subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, **more).split()[-1])


def eager(threads, steps):
    script = os.path.join(ROOT, "tests", "peers", "seed_gan.py")
    return ms([PYTHON, script, "--data", DATA, "--steps", str(steps), "--time", "--literal", "--threads", str(threads)])


def compiled(peer):
    script = os.path.join(ROOT, "tests", "bench", "training_peers.py")
    return lambda threads, steps: ms([PYTHON, script, peer, "--threads", str(threads), "--steps", str(steps)])


def rust(peer):
    program = os.path.join(TARGET, "release", "training")
    names = "RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"  # burn's matrix products have threads of their own
    return lambda threads, steps: ms([program, peer, str(steps)], env=os.environ | {name: str(threads) for name in names})


PEERS = {"PyTorch eager": eager, "torch.compile": compiled("compile"), "JAX jit": compiled("jax"),
         "JAX jit, given its random numbers": compiled("jax-given"), "burn": rust("burn"), "candle": rust("candle")}
ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--steps", type=int, default=400)
ap.add_argument("--threads", type=int, nargs="+", default=[1, 2])
a = ap.parse_args()
set_up()
cores = sorted(os.sched_getaffinity(0))
for threads in a.threads:
    os.sched_setaffinity(0, cores[:1] if threads == 1 else cores)  # what is started below inherits it
    rounds = []
    for _ in range(a.rounds):
        our = ours(threads, a.steps)
        rounds.append({"ours": our["step_ms"], "the matrix products at the machine's peak": our["floor_ms"]}
                      | {name: peer(threads, a.steps) for name, peer in PEERS.items()})
    print(f"{threads} thread{'s'[:threads - 1]}: ms a step, and times ours", flush=True)
    for name in rounds[0]:
        print(f"  {name:42} {statistics.median(r[name] for r in rounds):6.2f}"
              f" {statistics.median(r[name] / r['ours'] for r in rounds):6.2f}", flush=True)
