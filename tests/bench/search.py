#!/usr/bin/env python3
"""The search behind the tuned recipe: one setting at a time away from it, scored alike.

    tests/bench/search.py [--epochs 10] [--seeds 1] [--threads 2] [--only NAME ...]

Builds the trainer, trains each variant, scores 10,000 images of its last generator against MNIST's test images, and rewrites
search.md beside this file, a row at a time. A run of few epochs says what a setting does early, not where it ends.
"""
import argparse, json, os, statistics, subprocess, tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
DATA = os.environ.get("MNIST_DIR", os.path.join(ROOT, "..", "shared", "data", "mnist"))
TRAINER = os.environ.get("TRAINER", os.path.join(ROOT, "target", "release", "trainer"))
VARIANTS = {
    "tuned": "",
    "lr 0.001": "--lr 0.001",
    "lr 0.006": "--lr 0.006",
    "lr to 0": "--lr-end 0",
    "lr constant": "--lr-end 1",
    "no R1": "--r1 0",
    "R1 0.1": "--r1 0.1",
    "R1 1": "--r1 1",
    "no EMA": "--ema 0",
    "EMA 0.99": "--ema 0.99",
    "beta1 0.9": "--beta1 0.9",
    "D 128-64-32": "--d 128,64,32",
    "D 512-256": "--d 512,256",
    "batch 64": "--batch 64",
    "fresh z": "--one-z false",
    "bias from 0": "--mean-bias false",
    "smoothing 0.9": "--real-target 0.9",
    "unconditional": "--conditional false",
}

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--epochs", type=int, default=10)
ap.add_argument("--seeds", type=int, default=1)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--only", nargs="*")
a = ap.parse_args()
if "TRAINER" not in os.environ:
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "-p", "trainer"], cwd=ROOT)


def score(options, seed):
    common = ["--data", DATA, "--device", "cpu", "--threads", str(a.threads)]
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "g.onnx")
        subprocess.check_call([TRAINER, "--recipe", "tuned", "--epochs", str(a.epochs), "--seed", str(seed), "--quiet", "--score-every", "0",
                               "--run-dir", os.path.join(folder, "run"), "--out", out, *common, *options.split()], stderr=subprocess.DEVNULL)
        return json.loads(subprocess.check_output([TRAINER, "score", out, "--json", *common], stderr=subprocess.DEVNULL))


rows = []
for name, options in VARIANTS.items():
    if a.only and name not in a.only:
        continue
    scores = [score(options, seed) for seed in range(a.seeds)]
    mean = lambda key: statistics.mean(s[key] for s in scores)
    digit = f"{100 * mean('digit_accuracy'):.1f} %" if scores[0]["digit_accuracy"] is not None else "–"
    rows.append((mean("frechet_distance"), f"| {name} | `{options}` | {mean('frechet_distance'):.2f} | {mean('recall'):.2f} | {mean('coverage'):.2f} | {digit} |"))
    print(rows[-1][1], flush=True)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "search.md"), "w") as f:
        seeds = "seed 0" if a.seeds == 1 else f"means of seeds 0 to {a.seeds - 1}"
        f.write(f"# The search behind the tuned recipe\n\n`tests/bench/search.py --epochs {a.epochs} --seeds {a.seeds} --threads {a.threads}`: {seeds}, "
                f"{a.epochs} epochs each, the last generator, best first.\n\n| variant | options beside `--recipe tuned` | Fréchet distance | recall | coverage | digit as asked |\n"
                "|---|---|--:|--:|--:|--:|\n" + "\n".join(row for _, row in sorted(rows)) + "\n")
