"""check_classifiers.py FOLDER FULL: the accuracies of `trainer score --full`, beside those of classifiers of scikit-learn.

FOLDER has raw images (784 bytes each) in train, test and drawn, and a byte for the class of each in train.labels, test.labels and
drawn.labels. FULL is the JSON of the drawn images, which are sorted by class. Every second one has four white rows.
"""
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

folder, full = Path(sys.argv[1]), json.loads(sys.argv[2])
train, test, drawn = [np.fromfile(folder / name, np.uint8).reshape(-1, 784) / 255 for name in ("train", "test", "drawn")]
labels = {name: np.fromfile(folder / f"{name}.labels", np.uint8) for name in ("train", "test", "drawn")}
n, held_out = full["classifier_images"], full["two_sample_images"]
order = np.random.default_rng(0).permutation(len(drawn))  # another random seventh than the trainer's is held out
drawn, labels["drawn"] = drawn[order], labels["drawn"][order]


def check(name, expected, tolerance):
    print(f"{name}: {full[name]:.4f} by the trainer, {expected:.4f} by scikit-learn")
    assert abs(full[name] - expected) <= tolerance, f"{name}: {expected} expected, {full[name]} found"


def two_sample_test(real, fake, real_test, fake_test):
    """Accuracy, and the fraction of fake images that are taken for real."""
    tree = DecisionTreeClassifier(max_depth=1, random_state=0)
    tree.fit(np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)]))
    found, expected = tree.predict(np.concatenate([real_test, fake_test])), np.repeat([0, 1], [len(real_test), len(fake_test)])
    return balanced_accuracy_score(expected, found), np.mean(found[expected == 1] == 0)


accuracy, pass_rate = two_sample_test(train, drawn[:n], test[:held_out], drawn[-held_out:])
check("two_sample_accuracy", accuracy, 0.07)
check("pass_rate", pass_rate, 0.1)
accuracy, _ = two_sample_test(train[::2], train[1::2], test[: held_out // 2], test[held_out // 2 : held_out])
check("two_sample_accuracy_floor", accuracy, 0.2)  # two times guessing on 200 images
accuracy_scores = [
    ("accuracy_score", drawn[:n], labels["drawn"][:n], 0.08),
    ("accuracy_score_of_real", train, labels["train"], 0.12),
]
for name, images, of, tolerance in accuracy_scores:
    check(name, SVC(C=10).fit(images, of).score(test, labels["test"]), tolerance)
