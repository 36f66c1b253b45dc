import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
# The `runtime` program to compare with.
RUNTIME = os.environ.get("RUNTIME", str(ROOT / "target" / "release" / "runtime"))


def start(command):
    """`command`, started with a pipe for its output. It heeds SIGINT even if the tests run in the background: a shell makes
    background programs ignore the signal, and their children inherit that."""
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=heed)


@pytest.fixture
def letters(tmp_path):
    """A file of the shipped generator whose metadata name 26 classes, A to Z."""
    return of_classes(tmp_path / "letters.onnx", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def of_classes(path, names):
    """`path`, where the shipped generator is now, with metadata that name 10 to 26 classes of one character each."""
    array = json.dumps(list(names), separators=(",", ":")).encode()
    entry = b"\x0a\x07classes\x12" + bytes([len(array)]) + array  # protobuf: 1 is the key, 2 the value
    model = (MODELS / "g.onnx").read_bytes().replace(b"one-hot:10", b"one-hot:%d" % len(names))
    path.write_bytes(model + b"\x72" + bytes([len(entry)]) + entry)
    return path
