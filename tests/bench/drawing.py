#!/usr/bin/env python3
"""Microseconds an image: the runtime, ONNX Runtime, tract, candle, nalgebra and PyTorch, in turns on this machine.

    tests/bench/drawing.py [--rounds 15] [--kernel NAME] [--json]

Sets itself up: installs PyTorch, onnx and onnxruntime into .venv-bench, builds tests/bench/peers. One thread, the shipped
generator's weights; batches of 256. Prints medians over the rounds, and medians of the ratios within a round. All but PyTorch
are called from Rust; all but the runtime stop before the images are rounded to pixels, and get z as numbers.

--kernel also times the runtime with that kernel: `--kernel avx2` shows on a CPU with AVX-512 what one without it would run.
`runtime bench` lists the kernels of this CPU. The peers choose their own instructions.
"""
import argparse, glob, json, logging, os, platform, statistics, subprocess, sys, time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
VENV = os.path.join(ROOT, ".venv-bench")
PYTHON = os.path.join(VENV, "bin", "python")
PACKAGES = ["torch==2.15.0", "numpy==2.4.6", "onnx==1.23.0", "onnxruntime==1.31.1"]
MODEL = os.path.join(ROOT, "models", "g.onnx")
INT8 = os.path.join(ROOT, "target", "bench", "g.int8.onnx")

if os.path.realpath(sys.prefix) != os.path.realpath(VENV):
    if not os.path.exists(PYTHON):
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
    subprocess.check_call([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES])
    os.execv(PYTHON, [PYTHON, *sys.argv])

import numpy as np, onnx, onnxruntime, torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
ap.add_argument("--rounds", type=int, default=15)
ap.add_argument("--kernel", help="also time this kernel of the runtime, such as avx2")
ap.add_argument("--json", action="store_true")
a = ap.parse_args()
torch.set_num_threads(1)
rng = np.random.default_rng(0)


class Latents(CalibrationDataReader):
    """What sets the ranges of ONNX Runtime's own int8: 1,000 z."""
    left = [{"z": rng.uniform(-1, 1, (1000, 100)).astype(np.float32)}]

    def get_next(self):
        return self.left.pop() if self.left else None


def cpu():
    lines = (line.partition(":") for line in open("/proc/cpuinfo"))
    facts = {key.strip(): value.strip() for key, _, value in lines}
    return f"{facts.get('model name', platform.machine())}, family {facts.get('cpu family')}, model {facts.get('model')}"


def rust_peers():
    target = os.path.join(ROOT, "target", "bench")
    manifest = os.path.join(ROOT, "tests", "bench", "peers", "Cargo.toml")
    subprocess.check_call(["cargo", "build", "--release", "--locked", "-q", "--manifest-path", manifest, "--target-dir", target])
    logging.disable()  # it recommends a pre-processing that has nothing to do here
    quantize_static(MODEL, INT8, Latents(), quant_format=QuantFormat.QOperator, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    library, = glob.glob(os.path.join(os.path.dirname(onnxruntime.__file__), "capi", "libonnxruntime.so.*"))
    environment = dict(os.environ, ORT_DYLIB_PATH=library, RAYON_NUM_THREADS="1")
    return subprocess.Popen([os.path.join(target, "release", "peers"), MODEL, INT8, *([a.kernel] if a.kernel else [])],
                            env=environment, text=True, bufsize=1,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def pytorch(n):
    tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(MODEL).graph.initializer}
    layers = [(tensors[f"fc{i}.weight"], tensors[f"fc{i}.bias"]) for i in (1, 2, 3, 4)]
    z = torch.from_numpy(rng.uniform(-1, 1, (n, 100)).astype(np.float32))
    with torch.inference_mode():
        def draw():
            x = z
            for w, b in layers[:3]:
                x = torch.nn.functional.leaky_relu(torch.addmm(b, x, w), 0.2)
            return torch.tanh(torch.addmm(layers[3][1], x, layers[3][0]))
        draw()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < 0.04:
            for _ in range(10):
                draw()
            calls += 10
        return (time.perf_counter() - start) * 1e6 / (calls * n)


peers = rust_peers()
rounds = []
for _ in range(a.rounds):
    peers.stdin.write("round\n")
    times = dict(entry.split("=") for entry in peers.stdout.readline().strip().split("\t"))
    rounds.append({name: float(us) for name, us in times.items()} | {f"PyTorch/{n}": pytorch(n) for n in (1, 256)})
peers.stdin.close()
median = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
ratio = lambda name, to: statistics.median(r[name] / r[to] for r in rounds)
if a.json:
    print(json.dumps(median | {"cpu": cpu()}, indent=1))
else:
    print(cpu())
    for n, title in (("1", "one image"), ("256", "a batch of 256")):
        print(f"{title}: µs an image, and times the runtime's f32 and int8")
        for name in sorted((k for k in median if k.endswith("/" + n)), key=median.get):
            print(f"  {name.rsplit('/')[0]:28} {median[name]:7.2f} {ratio(name, 'runtime/' + n):7.2f} {ratio(name, 'runtime int8/' + n):7.2f}")
