"""check_generator.py MODEL [KEY=VALUE ...]: the file is what any ONNX tool expects of a generator.

onnx.checker accepts it in full, its metadata holds the given pairs, and stock ONNX Runtime draws batches of any size.
"""
import sys
import numpy as np, onnx, onnxruntime

path, pairs = sys.argv[1], [pair.split("=", 1) for pair in sys.argv[2:]]
model = onnx.load(path)
onnx.checker.check_model(model, full_check=True)
assert {o.domain: o.version for o in model.opset_import} == {"": 17}, model.opset_import
assert {n.op_type for n in model.graph.node} == {"Gemm", "LeakyRelu", "Tanh"}
metadata = {p.key: p.value for p in model.metadata_props}
for key in ("recipe", "seed", "epochs", "data_sha256", "trainer_version", "final_d_loss", "final_g_loss"):
    assert metadata.get(key), f"{key} is missing from {metadata}"
for key, value in pairs:
    assert metadata[key] == value, f"{key} is {metadata[key]}, not {value}"
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(z,), (image,) = session.get_inputs(), session.get_outputs()
assert (z.name, z.type, z.shape) == ("z", "tensor(float)", ["N", 100]), (z.name, z.type, z.shape)
assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["N", 784]), (image.name, image.shape)
for n in (1, 7):
    drawn, = session.run(None, {"z": np.random.default_rng(0).uniform(-1, 1, (n, 100)).astype(np.float32)})
    assert drawn.shape == (n, 784) and np.abs(drawn).max() <= 1 and drawn.std() > 0.1, drawn.std()
