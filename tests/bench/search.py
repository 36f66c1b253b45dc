#!/usr/bin/env python3
"""The search behind the tuned recipe: one setting at a time away from it, scored alike.

    tests/bench/search.py [--epochs 10] [--seeds 3] [--jobs 2] [--only NAME ...]

Builds the trainer, trains each variant with each seed on one thread, scores 10,000 images of its last generator against
MNIST's test images, and rewrites the table of so many epochs in search.md beside this file, a row at a time. Few epochs tell
what a setting does early, for many variants; 100 tell where it ends, for those that `--only` names.
"""
import argparse, concurrent.futures, json, os, re, statistics, subprocess, tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
DATA = os.environ.get("MNIST_DIR", os.path.join(ROOT, "..", "shared", "data", "mnist"))
TRAINER = os.environ.get("TRAINER", os.path.join(ROOT, "target", "release", "trainer"))
TABLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "search.md")
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
    "D 128-64-32": "--d-hidden 128,64,32",
    "D 512-256": "--d-hidden 512,256",
    "D conv 32-64": "--d-conv 32,64 --d-hidden 128 --r1 3",
    "batch 64": "--batch 64",
    "fresh z": "--shared-z false",
    "bias from 0": "--mean-bias false",
    "smoothing 0.9": "--real-target 0.9",
    "unconditional": "--conditional false",
}

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--epochs", type=int, default=10)
ap.add_argument("--seeds", type=int, default=3)
ap.add_argument("--jobs", type=int, default=2)
ap.add_argument("--only", nargs="*", default=VARIANTS, choices=VARIANTS)
a = ap.parse_args()
if "TRAINER" not in os.environ:
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "-p", "trainer"], cwd=ROOT)


def score(options, seed):
    common = ["--data", DATA, "--device", "cpu", "--threads", "1"]
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "g.onnx")
        subprocess.check_call([TRAINER, "--recipe", "tuned", "--epochs", str(a.epochs), "--seed", str(seed), "--quiet", "--score-every", "0",
                               "--run-dir", os.path.join(folder, "run"), "--out", out, *common, *options.split()], stderr=subprocess.DEVNULL)
        return json.loads(subprocess.check_output([TRAINER, "score", out, "--json", *common], stderr=subprocess.DEVNULL))


def write_table(rows):
    """In the place of the table of so many epochs, if there is one."""
    seeds = "seed 0" if a.seeds == 1 else f"means over seeds 0 to {a.seeds - 1}, and the least and greatest distance"
    table = (f"## {a.epochs} epochs\n\nThe last generators, {seeds}; best first.\n\n"
             "| variant | options beside `--recipe tuned` | Fréchet distance | | recall | coverage | class accuracy |\n"
             "|---|---|--:|---|--:|--:|--:|\n" + "\n".join(row for _, row in sorted(rows)) + "\n")
    text = open(TABLES).read() if os.path.exists(TABLES) else "# The search behind the tuned recipe\n\n"
    parts = [part for part in re.split(r"(?m)^(?=## )", text) if not part.startswith(f"## {a.epochs} epochs")]
    with open(TABLES, "w") as file:
        file.write("\n".join(part.rstrip("\n") + "\n" for part in [*parts, table]))


rows = []
with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
    runs = {name: [pool.submit(score, VARIANTS[name], seed) for seed in range(a.seeds)] for name in a.only}
    for name, scores in runs.items():
        scores = [run.result() for run in scores]
        mean = lambda key: statistics.mean(s[key] for s in scores)
        distances = [s["frechet_distance"] for s in scores]
        spread = "" if a.seeds == 1 else f"{min(distances):.2f} to {max(distances):.2f}"
        digit = "–" if scores[0]["class_accuracy"] is None else f"{100 * mean('class_accuracy'):.1f} %"
        rows.append((mean("frechet_distance"), f"| {name} | `{VARIANTS[name]}` | {mean('frechet_distance'):.2f} | {spread} |"
                     f" {mean('recall'):.2f} | {mean('coverage'):.2f} | {digit} |"))
        print(rows[-1][1], flush=True)
        write_table(rows)
