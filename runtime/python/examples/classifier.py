"""Trains one classifier on drawn digits and one on MNIST, and tests both on MNIST's test images.

    pip install scikit-learn
    python classifier.py MNIST_FOLDER
"""

import gzip
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import mnist_gan


def idx(folder, name, offset):
    """The bytes of an IDX file, gzipped or raw, after its header."""
    path = Path(folder) / name
    data = path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=offset)


def mnist(folder, part):
    images = idx(folder, f"{part}-images-idx3-ubyte", 16).reshape(-1, 784)
    return images, idx(folder, f"{part}-labels-idx1-ubyte", 8)


def accuracy(images, labels, test_images, test_labels):
    classifier = MLPClassifier((128,), batch_size=256, max_iter=5, random_state=0)
    classifier.fit(images / np.float32(255), labels)
    return classifier.score(test_images / np.float32(255), test_labels)


warnings.simplefilter("ignore", ConvergenceWarning)  # five epochs are enough for an example
folder = sys.argv[1]
test = mnist(folder, "t10k")

start = time.perf_counter()
seeds = range(60_000)
drawn = mnist_gan.generate(seeds).reshape(-1, 784), mnist_gan.labels(seeds)
print(f"60,000 digits drawn in {time.perf_counter() - start:.2f} s")

print(f"trained on drawn digits: {100 * accuracy(*drawn, *test):.2f} % of MNIST's test images are told")
print(f"trained on MNIST:        {100 * accuracy(*mnist(folder, 'train'), *test):.2f} %")
