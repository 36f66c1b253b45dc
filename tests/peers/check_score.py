"""check_score.py JUDGE FOLDER SCORE: the trainer's figures, computed by torch-fidelity, prdc and scikit-learn.

FOLDER has raw images (784 bytes each) in real and drawn, and a byte for the class of each in drawn.labels. SCORE is the JSON of
`trainer score`.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from prdc import compute_prdc
from sklearn.metrics import accuracy_score
from torch_fidelity import FeatureExtractorBase, calculate_metrics, register_feature_extractor

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
folder, score = Path(sys.argv[2]), json.loads(sys.argv[3])
real, drawn = [np.fromfile(folder / name, np.uint8).reshape(-1, 784) for name in ("real", "drawn")]
labels = np.fromfile(folder / "drawn.labels", np.uint8)


def judge(images):
    features, probability = session.run(None, {"image": (images / 127.5 - 1).astype(np.float32)})
    return features.astype(np.float64), probability


class Judge(FeatureExtractorBase):
    """The judge as a feature extractor of torch-fidelity."""

    get_provided_features_list = staticmethod(lambda: ("features",))
    get_default_feature_layer_for_metric = staticmethod(lambda metric: "features")
    can_be_compiled = staticmethod(lambda: False)

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)

    def forward(self, images):
        return (torch.from_numpy(judge(images.numpy())[0]),)


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def check(name, expected, tolerance):
    assert abs(score[name] - expected) <= tolerance, f"{name}: {expected} expected, {score[name]} found"


register_feature_extractor("judge", Judge)
fidelity = calculate_metrics(
    input1=Images(drawn), input2=Images(real), feature_extractor="judge", cuda=False, verbose=False, save_cpu_ram=True, fid=True,
    kid=True, kid_subsets=1, kid_subset_size=len(real), prc=True, prc_neighborhood=5,
)
(real_features, _), (drawn_features, seen) = judge(real), judge(drawn)
check("frechet_distance", fidelity["frechet_inception_distance"], 1e-3 * score["frechet_distance"])
# Large sums that nearly cancel: the tolerance is a share of the kernel's mean.
scale = np.mean((real_features @ drawn_features.T / 84 + 1) ** 3)
check("kernel_distance", fidelity["kernel_inception_distance_mean"], 1e-5 * scale)
check("precision", fidelity["precision"], 1e-3)
check("recall", fidelity["recall"], 1e-3)
for name, value in compute_prdc(real_features, drawn_features, nearest_k=5).items():
    check(name, value, 1e-3)
check("confidence", seen.max(1).mean(), 1e-4)
check("class_accuracy", accuracy_score(labels, seen.argmax(1)), 1e-3)
assert np.abs(np.bincount(seen.argmax(1), minlength=10) / len(drawn) - score["histogram"]).max() < 1e-3
check("duplicates", len(drawn) - len(np.unique(drawn, axis=0)), 0)
