#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into tests/fuzz/corpus. Needs the package onnx (.venv of tests/run) and a built trainer.

Each fuzz target in fuzz_targets says what its inputs are. Generators keep their weights in the data file `w`, which the target
has, so that the seeds are small.
"""

import gzip
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
SIZES = [100, 32, 64, 128, 784]


def generator(dense, leaky="{y} = LeakyRelu<alpha: float = 0.2>({x})", end="image = Tanh({x})", transposed=False):
    """A generator whose steps are spelled as these lines of ONNX's text format."""
    text, x = "", "z"
    for i in range(1, 5):
        text += dense.format(i=i, x=x, y=f"h{i}", O=SIZES[i]) + "\n"
        x = f"h{i}"
        text += (leaky if i < 4 else end).format(x=x, y=f"a{i}", i=i) + "\n"
        x = f"a{i}"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,100] z) => (float[N,784] image) {' + text + "}"
    )
    for i, (inputs, outputs) in enumerate(zip(SIZES, SIZES[1:]), 1):
        for name, dims in [(f"w{i}", [outputs, inputs] if transposed else [inputs, outputs]), (f"b{i}", [outputs])]:
            tensor = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
            tensor.external_data.add(key="location", value="w")
            model.graph.initializer.append(tensor)
            length = 4 * dims[0] * (dims[1] if len(dims) > 1 else 1)
            tensor.external_data.add(key="length", value=str(length))
    for name, value in [("tenth", 0.2), ("zero", 0.0)]:
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 784]))
    return model


def generators():
    gemm = "{y} = Gemm({x}, w{i}, b{i})"
    yield "gemm", generator(gemm)
    yield "transposed", generator("{y} = Gemm<transB: int = 1>({x}, w{i}, b{i})", transposed=True)
    yield "matmul", generator("p{i} = MatMul({x}, w{i}) {y} = Add(p{i}, b{i})")
    yield "no_bias", generator("p{i} = Gemm({x}, w{i}) {y} = Add(b{i}, p{i})")
    yield "max", generator(gemm, "s{i} = Mul({x}, tenth) {y} = Max({x}, s{i})")
    yield "where", generator(gemm, "n{i} = Less({x}, zero) s{i} = Mul(tenth, {x}) {y} = Where(n{i}, s{i}, {x})")
    yield "identity", generator("t{i} = Identity({x}) v{i} = Identity(w{i}) {y} = Gemm(t{i}, v{i}, b{i})")
    yield "transpose", generator("v{i} = Transpose<perm: ints = [1, 0]>(w{i}) {y} = Gemm({x}, v{i}, b{i})", transposed=True)
    yield "cast", generator("v{i} = Cast<to: int = 1>(w{i}) {y} = Gemm({x}, v{i}, b{i})")
    yield "dropout", generator(gemm, "d{i} = Dropout({x}) {y} = LeakyRelu<alpha: float = 0.2>(d{i})")
    yield "reshape", generator(gemm, end="t = Tanh({x}) image = Reshape(t, shape)")
    yield "flatten", generator(gemm, end="t = Flatten<axis: int = 1>({x}) image = Tanh(t)")
    yield "constant", generator("{y} = Gemm({x}, w{i}, b{i}) c{i} = Constant<value: tensor = float[2] {{1, 2}}>()")
    conditional = generator(gemm)
    helper.set_model_props(conditional, {"conditional": "one-hot:3", "classes": json.dumps(["B", "é", "T-shirt/top"])})
    yield "conditional", conditional
    yield "identity_only", onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,100] z) => (float[N,100] z) { z = Identity(z) }'
    )


def idx_files():
    images = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(range(256)) * 6 + bytes(32)
    labels = struct.pack(">II", 0x801, 3) + bytes([7, 0, 9])
    packed = gzip.compress(images, mtime=0)
    yield "images", b"\0" + images
    yield "images_gz", b"\0" + packed
    yield "images_gz_gz", b"\0" + gzip.compress(packed, mtime=0)
    yield "images_gz_in_two", b"\0" + gzip.compress(images[:9], mtime=0) + gzip.compress(images[9:], mtime=0)
    yield "images_cut", b"\0" + packed[:-9]
    yield "images_more", b"\0" + gzip.compress(struct.pack(">IIII", 0x803, 1 << 31, 28, 28) + bytes(99999), mtime=0)
    yield "labels", b"\1" + labels
    yield "labels_gz", b"\1" + gzip.compress(labels, mtime=0)


def run_files():
    """Settings, metrics and the head of a checkpoint of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        run, data = Path(folder, "run"), Path(folder, "data")
        data.mkdir()
        for prefix, n in [("train", 64), ("t10k", 2)]:
            (data / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, n, 28, 28) + bytes(784 * n))
            (data / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + bytes(n))
        command = [ROOT / "target/release/trainer", "--quiet", "--device", "cpu", "--epochs", "1", "--score-every", "0"]
        subprocess.run([*command, "--data", data, "--run-dir", run, "--out", Path(folder, "g.onnx")], check=True)
        settings = (run / "config.json").read_text().replace(folder, "/tmp")
        return settings, (run / "metrics.jsonl").read_text(), (run / "checkpoints/step-000000001.ckpt").read_bytes()


def main():
    corpus = ROOT / "tests/fuzz/corpus"
    shutil.rmtree(corpus, ignore_errors=True)

    def write(target, name, content):
        (corpus / target).mkdir(parents=True, exist_ok=True)
        (corpus / target / name).write_bytes(content)

    for name, model in generators():
        write("onnx", name, model.SerializeToString())
    for name, content in idx_files():
        write("idx", name, content)
    settings, metrics, checkpoint = run_files()
    write("run_folder", "run", f"{settings}\0{metrics}".encode())
    write("run_folder", "no_metrics", json.dumps(json.loads(settings)).encode())
    head = checkpoint[: checkpoint.index(b"\n") + 1]
    for flags in [0, 1, 3, 5]:
        write("checkpoint", f"flags_{flags}", bytes([flags]) + head)
    print(sum(len(list(folder.iterdir())) for folder in corpus.iterdir()), "seeds written")


if __name__ == "__main__":
    sys.exit(main())
