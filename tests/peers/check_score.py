"""check_score.py JUDGE DRAWN REAL DISTANCE ACCURACY LABELS: the trainer's figures, computed by ONNX Runtime and NumPy.

DRAWN and REAL are raw images (784 bytes each), LABELS the classes of REAL.
"""
import sys
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = [np.fromfile(path, np.uint8).reshape(-1, 784) for path in sys.argv[2:4]]
(drawn, _), (real, probability) = [session.run(None, {"image": (x / 127.5 - 1).astype(np.float32)}) for x in images]
labels = np.fromfile(sys.argv[6], np.uint8)
accuracy = np.mean(probability.argmax(1) == labels)
assert abs(accuracy - float(sys.argv[5])) < 1e-3, accuracy
a, b = (np.cov(x.astype(np.float64), rowvar=False) for x in (drawn, real))
eigenvalues = np.linalg.eigvals(a @ b)
distance = np.sum((drawn.astype(np.float64).mean(0) - real.astype(np.float64).mean(0)) ** 2) \
    + np.trace(a) + np.trace(b) - 2 * np.sqrt(np.maximum(eigenvalues.real, 0)).sum()
assert abs(distance - float(sys.argv[4])) < 1e-4 * distance, (distance, sys.argv[4])
