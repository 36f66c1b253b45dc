"""check_score.py JUDGE DRAWN REAL LABELS ACCURACY SCORE: the trainer's figures, computed by ONNX Runtime and NumPy.

DRAWN and REAL are raw images (784 bytes each), LABELS the classes of REAL, SCORE the JSON of `trainer score`.
"""
import json, sys
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = [np.fromfile(path, np.uint8).reshape(-1, 784) for path in sys.argv[2:4]]
(drawn, seen), (real, probability) = [session.run(None, {"image": (x / 127.5 - 1).astype(np.float32)}) for x in images]
labels, score = np.fromfile(sys.argv[4], np.uint8), json.loads(sys.argv[6])
drawn, real = drawn.astype(np.float64), real.astype(np.float64)


def check(name, ours, tolerance):
    assert abs(ours - score[name]) <= tolerance, (name, ours, score[name])


assert abs(np.mean(probability.argmax(1) == labels) - float(sys.argv[5])) < 1e-3
a, b = (np.cov(x, rowvar=False) for x in (drawn, real))
roots = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
distance = np.sum((drawn.mean(0) - real.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * roots
check("frechet_distance", distance, 1e-3 * distance)


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def within(x):
    k = kernel(x, x)
    return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))


# Large sums that nearly cancel: the tolerance is a millionth of them.
scale = kernel(real, drawn).mean()
check("kernel_distance", within(real) + within(drawn) - 2 * scale, 1e-5 * scale)


# Precision, recall, density and coverage as Naeem et al. 2020 have them in their package prdc, k = 5.
def distances(x, y):
    return np.sqrt(np.maximum((x ** 2).sum(1)[:, None] + (y ** 2).sum(1)[None] - 2 * x @ y.T, 0))


def radii(x):
    return np.partition(distances(x, x), 5, axis=1)[:, 5]


apart, r, f = distances(real, drawn), radii(real)[:, None], radii(drawn)[None]
check("precision", (apart < r).any(0).mean(), 5e-4)
check("recall", (apart < f).any(1).mean(), 5e-4)
check("density", (apart < r).sum(0).mean() / 5, 5e-4)
check("coverage", (apart.min(1) < r[:, 0]).mean(), 5e-4)
check("confidence", seen.max(1).mean(), 1e-4)
assert np.abs(np.bincount(seen.argmax(1), minlength=10) / len(seen) - score["histogram"]).max() < 5e-4
check("duplicates", len(images[0]) - len(np.unique(images[0], axis=0)), 0)
