import os
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
# The `runtime` program to compare with.
RUNTIME = os.environ.get("RUNTIME", str(ROOT / "target" / "release" / "runtime"))


def start(command):
    """`command`, started with a pipe for its output. It heeds SIGINT even if the tests run in the background: a shell makes
    background programs ignore the signal, and their children inherit that."""
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=heed)
