#!/usr/bin/env python3
"""Images a second of `runtime gen` and `runtime shards` on 1, 2 and 4 threads.

    tests/bench/scaling.py [--program target/release/runtime] [--rounds 5] [--count 60000] [--threads 1 2 4]

Writes raw images into a pipe, and IDX files, folders of PNG files and shards into /dev/shm, a RAM disk. Thread counts take turns.
Prints medians over the rounds, and each as a share of the images that as many copies of `runtime bench` draw from z in batches.
"""
import argparse, json, os, shutil, statistics, subprocess, tempfile, time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--program", default=os.path.join(ROOT, "target", "release", "runtime"))
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--count", type=int, default=60000)
ap.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
a = ap.parse_args()
WAYS = {  # arguments, and images for one image of --count
    "raw, pipe": (["gen", "--format", "raw"], 1),
    "IDX": (["gen", "--format", "idx", "--out", "images"], 1),
    "PNG folder": (["gen", "--out", "folder"], 1 / 6),
    "shards": (["shards", "set", "--shard-size", str(a.count // 8)], 1),
}


def images_a_second(way, precision, threads):
    arguments, share = WAYS[way]
    count = int(a.count * share)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        start = time.perf_counter()
        program = subprocess.Popen([a.program, *arguments, "--count", str(count), "--precision", precision, "--threads", str(threads)],
                                   cwd=folder, stdout=subprocess.PIPE)
        while os.read(program.stdout.fileno(), 1 << 20):
            pass
        assert program.wait() == 0
        return count / (time.perf_counter() - start)


a.program = os.path.abspath(a.program)
bench = json.loads(subprocess.check_output([a.program, "bench", "--json"]))
batch = {row["precision"]: row["batch_us"] for row in bench["images"] if row["kernel"] == bench["kernel"]}
cores = len(os.sched_getaffinity(0))
for precision in ("f32", "int8"):
    print(f"{precision}: a batch takes {batch[precision]:.2f} µs an image on one core of {cores}; kernel {bench['kernel']}")
    for way in WAYS:
        rounds = [{t: images_a_second(way, precision, t) for t in a.threads} for _ in range(a.rounds)]
        for t in a.threads:
            median = statistics.median(r[t] for r in rounds)
            print(f"  {way:12} {t:3} threads {median:10,.0f} images/s {median * batch[precision] / 1e6 / min(t, cores):6.1%}")
