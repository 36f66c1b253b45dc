"""`python -m mnist_gan` is the `runtime` program."""

import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import MODELS, RUNTIME, start

PYTHON = [sys.executable, "-m", "mnist_gan"]
SCRIPT = [os.path.join(os.path.dirname(sys.executable), "mnist-gan")]


def run(command, *arguments, **options):
    return subprocess.run([*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["gen", "--seed", 42],
        ["gen", "--grid", "3x3", "--precision", "int8", "--digit", 7],
        ["gen", "--count", 2000, "--format", "raw", "--threads", 2],
        ["inspect", MODELS / "g.onnx", "--json"],
        ["gen", "--digit", 3, "--model", MODELS / "seed.onnx"],
        ["gen", "--model", "no.onnx"],
        ["gen", "--count", 3],
        ["--version"],
        ["completions", "bash"],
        ["man", "gen"],
    ],
)
def test_it_prints_and_returns_what_the_program_does(arguments):
    expected = run([RUNTIME], *arguments)
    for command in (PYTHON, SCRIPT):
        found = run(command, *arguments)
        assert (found.returncode, found.stdout, found.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_wrong_usage_exits_with_2():
    for arguments in ([], ["draw"], ["gen", "--digit", 10], ["gen", "--seed", "x"]):
        expected, found = run([RUNTIME], *arguments), run(PYTHON, *arguments)
        assert found.returncode == expected.returncode == 2
        assert found.stdout == b"" and found.stderr.replace(b"mnist-gan", b"runtime") == expected.stderr


def test_it_writes_files(tmp_path):
    assert run(PYTHON, "gen", "--out", tmp_path / "digit.png").returncode == 0
    assert (tmp_path / "digit.png").read_bytes() == run([RUNTIME], "gen").stdout
    refused = run(PYTHON, "gen", "--out", tmp_path / "digit.png")
    assert refused.returncode == 1 and b"exists already" in refused.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")
def test_a_reader_that_closes_the_pipe_is_no_failure():
    program = subprocess.Popen(
        [*PYTHON, "gen", "--count", "1000000", "--format", "raw"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert len(program.stdout.read(784)) == 784
    program.stdout.close()
    assert program.stderr.read() == b"" and program.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")
def test_ctrl_c_ends_it_as_it_ends_the_program():
    codes = []
    for command in ([RUNTIME], PYTHON):
        program = start([*command, "gen", "--count", "4000000000", "--format", "raw"])
        program.stdout.read(784)
        program.send_signal(signal.SIGINT)
        codes.append(program.wait(60))  # the whole output would take hours
        program.stdout.close()  # not before: a program whose reader is gone ends with 0
    assert codes[0] == codes[1] == -signal.SIGINT


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")
def test_ctrl_c_removes_what_it_had_begun(tmp_path):
    program = start([*PYTHON, "gen", "--count", "2000000", "--format", "raw", "--out", tmp_path / "digits"])
    while not list(tmp_path.iterdir()):
        assert program.poll() is None
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    assert program.wait(60) == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []
