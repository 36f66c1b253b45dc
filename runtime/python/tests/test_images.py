"""Images: the bytes of the `runtime` program, whatever the call looks like."""

import functools
import hashlib
import pickle
import subprocess
import threading

import numpy as np
import pytest

import mnist_gan
from conftest import MODELS, RUNTIME, of_classes
from mnist_gan import Digits

MAX_SEED = 2**64 - 1


def drawn_by_the_program(*arguments):
    bytes = subprocess.check_output([RUNTIME, "gen", "--format", "raw", *map(str, arguments)])
    return np.frombuffer(bytes, np.uint8).reshape(-1, 28, 28)


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_ten_thousand_seeds_give_the_programs_bytes_single_in_a_batch_and_on_any_number_of_threads(precision):
    expected = drawn_by_the_program("--count", 10_000, "--precision", precision)
    for threads in (1, 2, 3, 7, 2**40, None):
        assert np.array_equal(mnist_gan.generate(range(10_000), precision=precision, threads=threads), expected)
    for seed in range(10_000):
        assert np.array_equal(mnist_gan.generate(seed, precision=precision), expected[seed])


def test_a_digit_is_the_programs_digit():
    expected = drawn_by_the_program("--count", 600, "--seed", 5, "--digit", 7)
    assert np.array_equal(mnist_gan.generate(range(5, 605), 7), expected)
    assert np.array_equal(mnist_gan.generate(range(5, 605), [7] * 600), expected)
    assert np.array_equal(mnist_gan.generate(5, 7), expected[0])
    mixed = mnist_gan.generate([5, 5], [7, 8])
    assert np.array_equal(mixed[0], expected[0]) and not np.array_equal(mixed[1], expected[0])


def test_labels_are_the_programs_labels(tmp_path):
    subprocess.check_call([RUNTIME, "gen", "--count", "1000", "--format", "idx", "--out", tmp_path / "i"])
    assert np.array_equal(mnist_gan.labels(range(1000)), np.fromfile(tmp_path / "i-labels", np.uint8, offset=8))
    assert mnist_gan.labels(3) == mnist_gan.labels([3])[0] and mnist_gan.labels([3]).dtype == np.uint8


def test_a_generators_file_draws_the_programs_bytes():
    for name in ("g.onnx", "seed.onnx"):
        for precision in ("f32", "int8"):
            expected = drawn_by_the_program("--count", 600, "--model", MODELS / name, "--precision", precision)
            generator = mnist_gan.Generator(MODELS / name, precision=precision)
            for drawn in (generator, pickle.loads(pickle.dumps(generator))):
                assert np.array_equal(drawn.generate(range(600)), expected)
                assert np.array_equal(drawn.generate(range(600), precision=precision), expected)


def test_a_generator_tells_what_its_file_says():
    best, seed = mnist_gan.Generator(str(MODELS / "g.onnx"), precision="int8"), mnist_gan.Generator(MODELS / "seed.onnx")
    assert (best.classes, best.precision, seed.classes, seed.precision) == (10, "int8", 0, "f32")
    assert best.metadata["recipe"] == "best" and seed.metadata["recipe"] == "seed"
    assert mnist_gan.Generator().metadata == best.metadata


def test_a_generator_names_its_weights_as_hashlib_does():
    onnx = pytest.importorskip("onnx")
    sha256 = {}
    for name in ("g.onnx", "seed.onnx"):
        tensors = onnx.load(MODELS / name).graph.initializer  # fc1.weight (100, 32), fc1.bias (32,), fc2.weight, ...
        weights = b"".join(onnx.numpy_helper.to_array(tensor).astype("<f4").tobytes() for tensor in tensors)
        sha256[name] = mnist_gan.Generator(MODELS / name).weights_sha256
        assert sha256[name] == hashlib.sha256(weights).hexdigest()
    assert mnist_gan.Generator().weights_sha256 == sha256["g.onnx"] != sha256["seed.onnx"]


def test_seeds_may_be_any_kind_of_integers():
    expected = mnist_gan.generate(range(3, 9, 2))
    kinds = [np.array([3, 5, 7], dtype) for dtype in "bBhHiIlLqQ"]
    kinds += [[3, 5, 7], (3, np.int8(5), 7), iter([3, 5, 7]), np.array([3, 5, 7], ">i4"), np.array([3, 0, 5, 0, 7])[::2]]
    for seeds in kinds:
        assert np.array_equal(mnist_gan.generate(seeds), expected)
    for seed in (3, np.uint64(3), np.array(3)):
        assert np.array_equal(mnist_gan.generate(seed), expected[0])
    assert np.array_equal(mnist_gan.generate(range(7, 1, -2)), expected[::-1])
    for empty in ([], range(0), np.array([], int)):
        assert mnist_gan.generate(empty).shape == (0, 28, 28)


def test_the_last_seeds_can_be_drawn():
    expected = drawn_by_the_program("--count", 3, "--seed", MAX_SEED - 2)
    last = range(MAX_SEED - 2, MAX_SEED + 1)
    for seeds in (last, list(last), np.array(last, np.uint64)):
        assert np.array_equal(mnist_gan.generate(seeds), expected)
    assert np.array_equal(mnist_gan.generate(last[::-1]), expected[::-1])
    assert np.array_equal(mnist_gan.generate(MAX_SEED), expected[2])


def test_out_is_filled_and_returned():
    out = np.zeros((1000, 28, 28), np.uint8)
    assert mnist_gan.generate(range(1000), out=out) is out
    assert np.array_equal(out, mnist_gan.generate(range(1000)))
    assert mnist_gan.generate(7, out=out[0]) is not None and np.array_equal(out[0], out[7])
    z = mnist_gan.latent(range(1000))
    assert mnist_gan.draw(z[::-1], out=out) is out and np.array_equal(out, mnist_gan.generate(range(999, -1, -1)))


READ_ONLY = np.zeros((2, 28, 28), np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("error", "sentence", "arguments"),
    [
        (OverflowError, "seeds: 0 to 18446744073709551615 expected, -1 found", dict(seeds=-1)),
        (OverflowError, "seeds: 0 to 18446744073709551615 expected, -1 found", dict(seeds=np.array([3, -1]))),
        (OverflowError, "seeds: 0 to 18446744073709551615 expected, -1 found", dict(seeds=[3, -1])),
        (OverflowError, "seeds: 0 to 18446744073709551615 expected, -3 found", dict(seeds=range(5, -5, -2))),
        (OverflowError, "seeds: 0 to 18446744073709551615 expected, 18446744073709551616 found", dict(seeds=2**64)),
        (OverflowError, "seeds: .* 18446744073709551616 found", dict(seeds=[2**64])),
        (OverflowError, "seeds: .* 18446744073709551617 found", dict(seeds=range(2**64, 2**64 + 2))),
        (TypeError, "seeds: integers expected, float found", dict(seeds=1.0)),
        (TypeError, "seeds: integers expected, float found", dict(seeds=[1, 2.0])),
        (TypeError, "seeds: integers expected, an array of float64 found", dict(seeds=np.array([1.0]))),
        (TypeError, "seeds: integers expected, an array of object found", dict(seeds=np.array([1, 2], object))),
        (TypeError, "seeds: integers expected, an array of bool found", dict(seeds=np.array([True]))),
        (TypeError, "seeds: integers expected, NoneType found", dict(seeds=None)),
        (TypeError, "seeds: integers expected, str found", dict(seeds="12")),
        (ValueError, r"seeds: one dimension expected, shape \(2, 2\) found", dict(seeds=np.zeros((2, 2), int))),
        (ValueError, "digits: 0 to 9 expected, 10 found", dict(digits=10)),
        (ValueError, "digits: 0 to 9 expected, -1 found", dict(digits=[0, -1])),
        (ValueError, "digits: one per seed expected, 11 for 10 seeds found", dict(seeds=range(10), digits=[1] * 11)),
        (ValueError, "digits: one expected for one seed, 2 found", dict(seeds=1, digits=[1, 2])),
        (TypeError, "digits: integers expected, float found", dict(digits=1.0)),
        (ValueError, "precision: 'f32' or 'int8' expected, 'f16' found", dict(precision="f16")),
        (ValueError, "threads: 1 or more expected, 0 found", dict(threads=0)),
        (TypeError, "threads: an int expected, float found", dict(threads=2.0)),
        (TypeError, "out: an array expected, list found", dict(out=[])),
        (TypeError, "out: an array of uint8 expected, int8 found", dict(out=np.zeros((2, 28, 28), np.int8))),
        (ValueError, r"out: shape \(2, 28, 28\) expected, \(3, 28, 28\) found", dict(out=np.zeros((3, 28, 28), np.uint8))),
        (ValueError, "out: a C-contiguous array expected", dict(out=np.zeros((4, 28, 28), np.uint8)[::2])),
        (ValueError, "out: a writeable array expected, a read-only one found", dict(out=READ_ONLY)),
    ],
)
def test_bad_input_is_refused_with_one_sentence_and_out_is_left_alone(error, sentence, arguments):
    out = np.full((2, 28, 28), 99, np.uint8)
    with pytest.raises(error, match=f"^{sentence}"):
        mnist_gan.generate(**{"seeds": range(2), "out": out, **arguments})
    assert (out == 99).all()


def test_an_unconditional_generator_refuses_digits():
    generator = mnist_gan.Generator(MODELS / "seed.onnx")
    assert generator.classes == 0 and generator.class_names == []
    calls = (lambda: generator.generate(1, 2), lambda: generator.generate(1, classes="2"), lambda: generator.latent(1, 2))
    for call in (*calls, lambda: generator.labels(1)):
        with pytest.raises(ValueError, match="a class-conditional generator expected, an unconditional one found"):
            call()


def test_classes_have_names_and_numbers(letters):
    generator = mnist_gan.Generator(letters)
    names = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert generator.class_names == names and generator.classes == 26
    raw = [RUNTIME, "gen", "--model", letters, "--count", "100", "--format", "raw"]
    for precision in ("f32", "int8"):
        drawn = {flags: subprocess.check_output([*raw, "--precision", precision, *flags]) for flags in [(), ("--class", "Q")]}
        draw = functools.partial(generator.generate, range(100), precision=precision)
        assert draw().tobytes() == drawn[()]
        assert draw(classes="Q").tobytes() == draw(classes=16).tobytes() == drawn["--class", "Q"]
        of_each = [names[label] for label in generator.labels(range(100))]
        for classes in (of_each, np.array(of_each), generator.labels(range(100)), tuple(generator.labels(range(100)))):
            assert draw(classes=classes).tobytes() == drawn[()]
    assert np.array_equal(generator.generate(3, classes="B"), generator.generate([3], classes=["B"])[0])
    assert np.array_equal(generator.latent(5, classes="Z")[:26], np.eye(26)[25])
    assert np.array_equal(generator.draw(generator.latent(range(9), classes="C")), generator.generate(range(9), classes="C"))
    same = pickle.loads(pickle.dumps(generator))
    assert same.class_names == names and np.array_equal(same.generate(3, classes="B"), generator.generate(3, classes="B"))
    assert np.array_equal(mnist_gan.generate(5, classes="7"), mnist_gan.generate(5, 7))


def test_a_digit_is_the_class_of_its_name_as_in_the_program(tmp_path):
    model = of_classes(tmp_path / "mixed.onnx", "x3210987654y")
    generator = mnist_gan.Generator(model)
    raw = [RUNTIME, "gen", "--model", model, "--seed", "5", "--format", "raw", "--digit"]
    each = [subprocess.check_output([*raw, str(digit)]) for digit in range(10)]
    assert [generator.generate(5, digit).tobytes() for digit in range(10)] == each
    assert generator.generate([5] * 10, range(10)).tobytes() == b"".join(each)
    assert np.array_equal(generator.generate([], []), np.empty((0, 28, 28)))
    assert generator.latent(5, 3)[1] == 1 and Digits(0, 1, 3, generator=generator)[0][1] == 1
    two = mnist_gan.Generator(of_classes(tmp_path / "two.onnx", "3abcdefghi"))
    assert np.array_equal(two.generate([1, 2], 3), two.generate([1, 2], classes=0))
    for digits in (4, [3, 4]):
        with pytest.raises(ValueError, match="^digits: one of 3, a, .*, i expected, 4 found; use classes$"):
            two.generate([1, 2], digits)


def test_names_of_classes_can_be_arrays_of_objects_such_as_a_column_of_pandas(letters):
    generator = mnist_gan.Generator(letters)
    expected = generator.generate(range(3), classes=["C", "A", "Z"])
    for classes in (["C", "A", "Z"], ["C", 0, "Z"], [2, 0, 25]):
        assert np.array_equal(generator.generate(range(3), classes=np.array(classes, object)), expected)
    string = getattr(getattr(np, "dtypes", None), "StringDType", None)  # from numpy 2 on
    if string is not None:
        assert np.array_equal(generator.generate(range(3), classes=np.array(["C", "A", "Z"], string())), expected)


@pytest.mark.parametrize(
    ("error", "sentence", "arguments"),
    [
        (ValueError, "classes: one of A, B, .*, Z expected, b found", dict(classes="b")),
        (ValueError, "classes: one of A, B, .*, Z expected, 7 found", dict(classes=["A", "7"])),
        (ValueError, "classes: 0 to 25 expected, 26 found", dict(classes=26)),
        (ValueError, "classes: one per seed expected, 3 for 2 seeds found", dict(classes=["A", "B", "C"])),
        (ValueError, "classes: one expected for one seed, 2 found", dict(seeds=1, classes=["A", "B"])),
        (TypeError, "classes: integers expected, float found", dict(classes=1.0)),
        (ValueError, "classes: digits or classes expected, both found", dict(digits=1, classes=1)),
        (ValueError, "digits: one of A, B, .*, Z expected, 1 found; use classes", dict(digits=1)),
    ],
)
def test_a_class_that_a_generator_does_not_have_is_refused_with_one_sentence(letters, error, sentence, arguments):
    with pytest.raises(error, match=f"^{sentence}$"):
        mnist_gan.Generator(letters).generate(**{"seeds": range(2), **arguments})


def test_a_file_that_is_no_generator_is_refused_with_the_programs_sentence(tmp_path):
    (tmp_path / "text.onnx").write_text("This is a text, and not a model.")
    whole = (MODELS / "g.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    for name, error in [("text", ValueError), ("half", ValueError), ("none", FileNotFoundError)]:
        path = tmp_path / f"{name}.onnx"
        program = subprocess.run([RUNTIME, "gen", "--model", path], stderr=subprocess.PIPE, text=True)
        with pytest.raises(error) as refused:
            mnist_gan.Generator(path)
        assert program.stderr == f"error: --model: {refused.value}\n"


def test_latents_draw_the_images_of_their_seeds():
    for generator in (mnist_gan.Generator(), mnist_gan.Generator(MODELS / "seed.onnx")):
        z = generator.latent(range(1000))
        assert z.shape == (1000, 100) and z.dtype == np.float32 and (np.abs(z) <= 1).all()
        for precision in ("f32", "int8"):
            drawn = generator.draw(z, precision=precision)
            assert np.array_equal(drawn, generator.generate(range(1000), precision=precision))
        assert np.array_equal(generator.draw(z.astype(np.float64)), generator.generate(range(1000)))
        assert np.array_equal(generator.latent(7), z[7]) and np.array_equal(generator.draw(z[7]), generator.generate(7))
    assert np.array_equal(mnist_gan.latent(5, 3)[:10], np.eye(10)[3])
    assert np.array_equal(mnist_gan.latent([5], 3)[0, 10:], mnist_gan.latent(5)[10:])
    assert np.array_equal(mnist_gan.draw(np.full(100, 9)), mnist_gan.draw(np.ones(100)))


@pytest.mark.parametrize(
    ("error", "sentence", "z"),
    [
        (ValueError, r"z: shape \(100,\) or \(N, 100\) expected, \(99,\) found", np.zeros(99)),
        (ValueError, r"z: shape .* expected, \(1, 1, 100\) found", np.zeros((1, 1, 100))),
        (ValueError, "z: numbers expected, NaN found", np.full((2, 100), np.nan)),
        (TypeError, "z: real numbers expected, an array of complex128 found", np.zeros(100, complex)),
        (TypeError, "z: real numbers expected, an array of object found", np.full(100, None)),
    ],
)
def test_bad_latents_are_refused(error, sentence, z):
    with pytest.raises(error, match=f"^{sentence}"):
        mnist_gan.draw(z)


def test_a_walk_leads_from_one_seed_to_another_and_keeps_the_digit():
    walk = mnist_gan.interpolate(3, 4, 9)
    digit = mnist_gan.labels(3)
    assert walk.shape == (9, 28, 28)
    assert np.array_equal(walk[0], mnist_gan.generate(3)) and np.array_equal(walk[8], mnist_gan.generate(4, digit))
    middle = (mnist_gan.latent(3, digit).astype(float) + mnist_gan.latent(4, digit)) / 2
    assert np.array_equal(walk[4], mnist_gan.draw(middle))
    latents = mnist_gan.interpolate(mnist_gan.latent(3), mnist_gan.latent(4), 9, precision="f32", threads=1)
    assert np.array_equal(latents, walk)
    assert np.array_equal(mnist_gan.interpolate(3, 4, 1), walk[:1])
    seed = mnist_gan.Generator(MODELS / "seed.onnx")
    assert np.array_equal(seed.interpolate(3, 4, 2), seed.generate([3, 4]))
    for bad in (dict(a=-1, error=OverflowError), dict(a=1.5), dict(a=np.zeros((1, 100))), dict(steps=0)):
        with pytest.raises(bad.pop("error", ValueError)):
            mnist_gan.interpolate(**{"a": 1, "b": 2, "steps": 3, **bad})


def test_a_grid_is_the_programs_grid():
    from_program = subprocess.check_output([RUNTIME, "gen", "--grid", "3x4", "--format", "raw"])
    expected = np.frombuffer(from_program, np.uint8).reshape(3 * 28, 4 * 28)
    images = mnist_gan.generate(range(12))
    assert np.array_equal(mnist_gan.grid(images, 3, 4), expected)
    missing = mnist_gan.grid(images[:11], 3, 4)
    assert not missing[56:, 84:].any() and np.array_equal(missing[:56], expected[:56])
    for bad in ((images, 3, 3), (images, 0, 4), (images[0], 3, 4)):
        with pytest.raises(ValueError):
            mnist_gan.grid(*bad)
    with pytest.raises(TypeError):
        mnist_gan.grid(images / 255, 3, 4)


def test_a_notebook_shows_the_programs_png():
    png = subprocess.check_output([RUNTIME, "gen", "--seed", "42", "--scale", "4"])
    assert mnist_gan.show(mnist_gan.generate(42))._repr_png_() == png
    png = subprocess.check_output([RUNTIME, "gen", "--grid", "3x4"])
    assert mnist_gan.show(mnist_gan.generate(range(12)), scale=1)._repr_png_() == png
    with pytest.raises(ValueError, match="scale: 1 or more expected, 0 found"):
        mnist_gan.show(mnist_gan.generate(42), scale=0)


def test_other_threads_run_while_images_are_drawn():
    out = np.zeros((200_000, 28, 28), np.uint8)
    drawing = threading.Thread(target=lambda: mnist_gan.generate(range(len(out)), out=out, threads=1))
    drawing.start()
    # If the call kept the GIL, this thread would see all images or none.
    sees_a_part = False
    while drawing.is_alive() and not sees_a_part:
        sees_a_part = out[0].any() and not out[-1].any()
    drawing.join()
    assert sees_a_part and out[-1].any()


def test_many_threads_draw_from_one_generator():
    generator = mnist_gan.Generator(MODELS / "g.onnx")
    results = [None] * 8

    def draw(i):
        results[i] = generator.generate(range(2000), precision="int8", threads=2)

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(np.array_equal(result, mnist_gan.generate(range(2000), precision="int8")) for result in results)
