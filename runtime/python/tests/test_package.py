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
start = time.process_time()
import numpy
before, between = set(sys.modules), time.process_time()
import mnist_gan
print(between - start, time.process_time() - between, *{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_the_import_needs_numpy_alone_and_takes_a_fifth_of_numpys_time_at_most(tmp_path):
    shares = []
    # The first process compiles both packages, for the others.
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(6):
        told = subprocess.check_output([sys.executable, "-c", IMPORT], text=True, env=compiled)
        numpys, took, *modules = told.split()
        standard = getattr(sys, "stdlib_module_names", None)  # from Python 3.10 on
        assert standard is None or set(modules) - standard <= {"mnist_gan", "numpy"}, modules
        shares.append(float(took) / float(numpys))
    print(f"import: {1000 * float(took):.1f} ms, numpy's {1000 * float(numpys):.1f} ms")
    assert min(shares) <= 0.2, shares


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


def test_without_dask_the_error_says_what_to_install():
    hidden = "import sys; sys.modules['distributed'] = None; "
    call = hidden + "from mnist_gan import cluster; cluster.generate(None, 'out', count=9)"
    found = subprocess.run([sys.executable, "-c", call], capture_output=True)
    sentence = b'mnist_gan.cluster: Dask expected, none found; pip install "mnist-gan[cluster]"\n'
    assert found.stderr.endswith(b"ModuleNotFoundError: " + sentence), found.stderr
    program = hidden + "from mnist_gan.cluster.__main__ import main; sys.exit(main())"
    command = ["generate", "out", "--count", "9", "--scheduler", "local"]
    found = subprocess.run([sys.executable, "-c", program, *command], capture_output=True)
    assert (found.returncode, found.stderr) == (1, b"error: " + sentence)
