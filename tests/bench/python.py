#!/usr/bin/env python3
"""Microseconds per image from Python: mnist_gan, onnxruntime and PyTorch from seeds to uint8, beside `runtime bench`.

    tests/bench/python.py [--rounds 9] [--json]

Sets itself up: installs onnx, onnxruntime and ./runtime/python into .venv-bench, PyTorch as tests/python/torch does, and builds the
runtime. Needs g++ for torch.compile. One thread, the shipped generator's weights. All take turns in each round; prints medians over the rounds, and medians of the ratios within a round.

The peers are spared one part of the work: they make the z of a batch from one seed instead of one seed per image, because their
random generators need longer to take a seed than the network needs to draw.
"""
import argparse, json, os, statistics, subprocess, sys, time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
VENV = os.path.join(ROOT, ".venv-bench")
PYTHON = os.path.join(VENV, "bin", "python")
PACKAGES = ["numpy==2.4.6", "onnx==1.23.0", "onnxruntime==1.31.1", "maturin==1.16.0"]
COMPILER = ["sympy==1.14.0", "networkx==3.6.1", "jinja2==3.1.6", "filelock==4.3.1", "fsspec==2026.9.0", "setuptools==84.2.1"]
MODEL = os.path.join(ROOT, "models", "g.onnx")
TARGET = os.environ.setdefault("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))

if os.path.realpath(sys.prefix) != os.path.realpath(VENV):
    if not os.path.exists(PYTHON):
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.check_call([*pip, *PACKAGES, *COMPILER])
    subprocess.check_call([*pip, "--no-build-isolation", "--no-deps", "--force-reinstall", os.path.join(ROOT, "runtime", "python")],
                          env=dict(os.environ, PATH=os.path.join(VENV, "bin") + os.pathsep + os.environ["PATH"]))
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "-p", "runtime"], cwd=ROOT)
    torch = subprocess.check_output([os.path.join(ROOT, "tests", "python", "torch")], env=dict(os.environ, PEERS_PYTHON=PYTHON), text=True).strip()
    os.environ.update(PYTHONPATH=torch, LD_LIBRARY_PATH=os.path.join(torch, "stand-ins"))
    os.execv(PYTHON, [PYTHON, *sys.argv])

import mnist_gan, numpy as np, onnx, onnxruntime, torch

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--rounds", type=int, default=9)
ap.add_argument("--json", action="store_true")
a = ap.parse_args()
torch.set_num_threads(1)
BATCH = 10_000
PART = 500  # The peers draw a batch in parts that fit the cache, which is faster for them than all at once.


def library():
    """The runtime's own figures; its batch starts from z, and so do its single images."""
    report = json.loads(subprocess.check_output([os.path.join(TARGET, "release", "runtime"), "bench", "--json"]))
    own = {f"{i['precision']}": i for i in report["images"] if i["kernel"] == report["kernel"]}
    figures = {}
    for precision, figure in own.items():
        figures[f"library {precision}/1"] = figure["single_us"] + report["seed_to_z_us"]
        figures[f"library {precision}/{BATCH}"] = figure["batch_us"]
        figures[f"library {precision}, seeds to z too/{BATCH}"] = figure["batch_us"] + report["seed_to_z_us"]
    return figures


def onnx_runtime():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def draw(n):
        z = np.random.default_rng(42).random((n, 100), np.float32) * 2 - 1
        z[:, :10] = one_hot[:n]
        parts = [session.run(None, {name: z[i : i + PART]})[0] for i in range(0, n, PART)]
        return np.concatenate([np.rint(127.5 * part + 127.5).astype(np.uint8) for part in parts])

    return draw


def pytorch(compiled):
    tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(MODEL).graph.initializer}
    layers = [(tensors[f"fc{i}.weight"], tensors[f"fc{i}.bias"]) for i in (1, 2, 3, 4)]

    def network(z):
        x = z
        for w, b in layers[:3]:
            x = torch.nn.functional.leaky_relu(torch.addmm(b, x, w), 0.2)
        return (127.5 * torch.tanh(torch.addmm(layers[3][1], x, layers[3][0])) + 127.5).round().to(torch.uint8)

    if compiled:
        network = torch.compile(network, dynamic=False)
    labels, generator = torch.from_numpy(one_hot), torch.Generator()

    @torch.inference_mode()
    def draw(n):
        z = torch.rand(n, 100, generator=generator.manual_seed(42)) * 2 - 1
        z[:, :10] = labels[:n]
        return torch.cat([network(z[i : i + PART]) for i in range(0, n, PART)]).numpy()

    return draw


def microseconds(draw, n):
    """The median of many short measurements, as in `runtime bench`."""
    draw()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.002 or not calls:
        draw()
        calls += 1
    each, end = [], time.perf_counter() + 0.3
    while time.perf_counter() < end or len(each) < 3:
        start = time.perf_counter()
        for _ in range(calls):
            draw()
        each.append((time.perf_counter() - start) * 1e6 / (calls * n))
    return statistics.median(each)


one_hot = np.eye(10, dtype=np.float32)[mnist_gan.labels(range(BATCH))]
seeds, out = range(BATCH), np.empty((BATCH, 28, 28), np.uint8)
peers = {"onnxruntime": onnx_runtime(), "PyTorch eager": pytorch(False), "PyTorch compiled": pytorch(True)}
ours = {f"mnist_gan {p}": p for p in ("f32", "int8")}
rounds = []
for _ in range(a.rounds):
    figures = library()
    for name, p in ours.items():
        figures[f"{name}/1"] = microseconds(lambda: mnist_gan.generate(42, precision=p), 1)
        figures[f"{name}/{BATCH}"] = microseconds(lambda: mnist_gan.generate(seeds, precision=p, threads=1), BATCH)
        figures[f"{name}, out=/{BATCH}"] = microseconds(lambda: mnist_gan.generate(seeds, precision=p, threads=1, out=out), BATCH)
    for name, draw in peers.items():
        for n in (1, BATCH):
            figures[f"{name}/{n}"] = microseconds(lambda: draw(n), n)
    rounds.append(figures)
median = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
ratio = lambda name, to: statistics.median(r[name] / r[to] for r in rounds)
above = {p: statistics.median(r[f"mnist_gan {p}/1"] - r[f"library {p}/1"] for r in rounds) for p in ("f32", "int8")}
if a.json:
    print(json.dumps({"us": median, "above_library_us": above}, indent=1))
else:
    for n, title in ((1, "one image"), (BATCH, f"a batch of {BATCH}")):
        print(f"{title}: µs per image, and times mnist_gan's f32 and int8")
        for name in sorted((k for k in median if k.endswith(f"/{n}")), key=median.get):
            print(f"  {name.rsplit('/')[0]:32} {median[name]:8.2f} {ratio(name, f'mnist_gan f32/{n}'):7.2f} {ratio(name, f'mnist_gan int8/{n}'):7.2f}")
    print(f"one image is {above['f32']:.2f} µs (f32) and {above['int8']:.2f} µs (int8) above the library's")
