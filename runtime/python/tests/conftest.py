import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
# The `runtime` program to compare with.
RUNTIME = os.environ.get("RUNTIME", str(ROOT / "target" / "release" / "runtime"))
