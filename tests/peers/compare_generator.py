"""compare_generator.py MODEL FILE: ONNX Runtime draws what the runtime drew.

FILE holds, for each of N seeds, z (100 f32), the runtime's image before rounding (784 f32) and after (784 u8).
"""
import sys
import numpy as np, onnxruntime

record = np.dtype([("z", "<f4", 100), ("image", "<f4", 784), ("pixels", "u1", 784)])
ours = np.fromfile(sys.argv[2], record)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
theirs, = session.run(None, {"z": ours["z"]})
far = np.abs(theirs - ours["image"]).max()
assert far <= 2e-5, f"before rounding they are {far} apart"
levels = np.abs(np.rint(127.5 * theirs + 127.5).astype(int) - ours["pixels"])
assert levels.max() <= 1, f"after rounding they are {levels.max()} grey levels apart"
print(f"{len(ours)} images: at most {far:.1e} apart before rounding; {np.count_nonzero(levels)} pixels one level apart after")
