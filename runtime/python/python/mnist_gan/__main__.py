"""The `runtime` program: `python -m mnist_gan gen --seed 42 > digit.png`."""

import signal
import sys

from . import _native


def main() -> int:
    """Runs the program with the arguments of this process; returns its exit code: 0, 1 for failure, 2 for wrong usage."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process, because Python's handler waits for Rust to return
    return _native.main(["mnist-gan", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
