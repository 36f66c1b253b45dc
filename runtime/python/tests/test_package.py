"""The package as a whole: its documentation, its import, Ctrl-C."""

import doctest
import os
import subprocess
import sys

import pytest

import mnist_gan
from conftest import start
from mnist_gan import _data, _generator, _picture


def test_the_examples_in_docstrings_run():
    for module, least in ((mnist_gan, 6), (_generator, 12), (_data, 6), (_picture, 4)):
        result = doctest.testmod(module)
        assert result.failed == 0 and result.attempted >= least, (module, result)


def test_everything_public_is_documented():
    for name in set(mnist_gan.__all__) - {"__version__"}:
        assert getattr(mnist_gan, name).__doc__, name
    for name in ("generate", "labels", "latent", "draw", "interpolate"):
        text = getattr(mnist_gan, name).__doc__
        assert "shape" in text and "Raises" in text and ">>>" in text, name


IMPORT = """
import sys, time
import numpy
before, start = set(sys.modules), time.process_time()
import mnist_gan
took = time.process_time() - start
print(took * 1000, *{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_the_import_needs_numpy_alone_and_adds_20_ms_at_most():
    times = []
    for _ in range(5):
        took, *modules = subprocess.check_output([sys.executable, "-c", IMPORT], text=True).split()
        standard = getattr(sys, "stdlib_module_names", None)  # from Python 3.10 on
        assert standard is None or set(modules) - standard <= {"mnist_gan", "numpy"}, modules
        times.append(float(took))
    print(f"import: {min(times):.1f} ms beyond numpy's")
    assert min(times) <= 20, times


LONG_CALL = """
import numpy, os, signal, sys, threading
import mnist_gan
out = numpy.zeros((2_000_000, 28, 28), numpy.uint8)
def interrupt():
    while not out[1000].any():
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    mnist_gan.generate(range(len(out)), out=out, threads={threads})
except KeyboardInterrupt:
    drawn = out.any(axis=(1, 2))
    count = int(drawn.sum())
    assert 0 < count < len(out) and drawn[:count].all() and not drawn[count:].any()
    assert numpy.array_equal(out[count - 1], mnist_gan.generate(count - 1))
    sys.exit(7)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_ends_a_long_call_and_leaves_whole_images(threads):
    program = start([sys.executable, "-c", LONG_CALL.format(threads=threads)])
    assert program.wait(120) == 7
