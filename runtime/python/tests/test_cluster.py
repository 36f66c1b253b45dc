"""Data sets and training runs on a Dask cluster of two worker processes. A process of `runtime shards` draws the expected files."""

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import mnist_gan
from conftest import MODELS, ROOT, RUNTIME
from mnist_gan import cluster

distributed = pytest.importorskip("distributed", reason="Dask is not installed")
from mnist_gan.cluster import __main__, _generate, _progress, _sweep, _tasks  # noqa: E402

PROGRAM = [sys.executable, "-m", "mnist_gan.cluster"]


@pytest.fixture(scope="module")
def machine():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as machine:
        yield machine


@pytest.fixture
def client(machine):
    with distributed.Client(machine) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


def files(folder):
    """The SHA-256 of every file below a folder, by path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def runtime(*arguments):
    subprocess.run([RUNTIME, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def check_sums(folder):
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def kill_a_worker(client):
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


@contextmanager
def kills_of_workers(client, digests, times):
    """Kills a worker, with SIGKILL, each time when a few more shards are complete; yields the list of the killed processes."""
    killed, is_over = [], threading.Event()

    def kill():
        while len(killed) < times and not is_over.is_set():
            if len(list(digests.glob("*.sha256"))) > 3 * len(killed):
                # The scheduler may still list a worker that has just been killed.
                pid = next(iter(set(client.run(os.getpid, on_error="ignore").values()) - set(killed)), None)
                if pid:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize(
    "options",
    [{"seed": 7}, {"digit": 3, "precision": "int8"}, {"model": "unconditional"}, {"model": "letters", "class_": "X"}],
)
def test_two_workers_draw_the_files_of_the_program(client, tmp_path, letters, options):
    models = {"unconditional": MODELS / "seed.onnx", "letters": letters}
    options = {name: models[value] if name == "model" else value for name, value in options.items()}
    options.update(count=5500, shard_size=1000)
    assert cluster.generate(client, tmp_path / "found", **options)[:3] == (6, 6, 5500)
    runtime("shards", tmp_path / "expected", *(f"--{name.strip('_').replace('_', '-')}={options[name]}" for name in options))
    assert files(tmp_path / "found") == files(tmp_path / "expected")
    assert cluster.generate(client, tmp_path / "found", **options)[:3] == (6, 0, 0)


def test_killed_workers_cost_nothing_but_time(client, tmp_path):
    plan = ["--count", 200_000, "--shard-size", 10_000]
    runtime("shards", tmp_path / "expected", *plan)
    with kills_of_workers(client, tmp_path / "found" / "digests", 3) as killed:
        drawn = cluster.generate(client, tmp_path / "found", count=200_000, shard_size=10_000)
    assert killed and drawn.shards == 20  # a fast machine may end before the third kill
    assert files(tmp_path / "found") == files(tmp_path / "expected")
    runtime("verify", tmp_path / "found")
    check_sums(tmp_path / "found")



def test_parquet_holds_the_images_labels_and_seeds(client, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    plan = {"count": 12_000, "shard_size": 11_000, "seed": 5, "format": "parquet"}
    assert cluster.generate(client, tmp_path / "a", **plan)[:3] == (2, 2, 12_000)
    check_sums(tmp_path / "a")
    shards = sorted((tmp_path / "a" / "data").iterdir())
    assert [shard.name for shard in shards] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    groups = parquet.ParquetFile(shards[0]).metadata
    assert [groups.row_group(group).num_rows for group in range(groups.num_row_groups)] == [10_000, 1000]

    rows = parquet.read_table(tmp_path / "a" / "data")
    seeds = range(5, 12_005)
    assert rows["seed"].to_pylist() == list(seeds)
    assert np.array_equal(rows["label"].to_numpy(), mnist_gan.labels(seeds))
    image = pytest.importorskip("PIL.Image")
    for i in range(0, 12_000, 700):
        png = io.BytesIO(rows["image"][i]["bytes"].as_py())
        assert np.array_equal(np.asarray(image.open(png)), mnist_gan.generate(seeds[i]))

    cluster.generate(client, tmp_path / "b", **plan)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    # A truncated shard is drawn again, and an old leftover removed. Another call may still write the young one.
    whole = files(tmp_path / "b")
    os.truncate(tmp_path / "b" / "data" / shards[1].name, 1000)
    old, young = (tmp_path / "b" / "data" / f".mnist-gan-{name}.tmp" for name in ("old", "young"))
    old.touch()
    young.touch()
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    os.utime(old, (two_days_ago, two_days_ago))
    assert cluster.generate(client, tmp_path / "b", **plan)[:3] == (2, 1, 1000)
    young.unlink()
    assert files(tmp_path / "b") == whole


def test_datasets_and_duckdb_read_parquet(client, tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    cluster.generate(client, tmp_path / "digits", count=3000, shard_size=1000, format="parquet")
    cluster.generate(client, tmp_path / "sevens", count=100, digit=7, format="parquet")
    cluster.generate(client, tmp_path / "unlabelled", count=100, model=MODELS / "seed.onnx", format="parquet")

    rows = str(tmp_path / "digits" / "data" / "*.parquet")
    labels, counts = np.unique(mnist_gan.labels(range(3000)), return_counts=True)
    found = duckdb.sql(f"select label, count(distinct seed) from '{rows}' group by label order by label").fetchall()
    assert found == list(zip(labels.tolist(), counts.tolist()))

    cache = str(tmp_path / "cache")
    digits = datasets.load_dataset("parquet", data_files=rows, split="train", cache_dir=cache)
    assert len(digits) == 3000 and digits.features["label"].names == [str(digit) for digit in range(10)]
    item = digits[2500]
    assert np.array_equal(np.asarray(item["image"]), mnist_gan.generate(2500))
    assert (item["label"], item["seed"]) == (mnist_gan.labels(2500), 2500)
    sevens = datasets.load_dataset(str(tmp_path / "sevens"), split="train", cache_dir=cache)
    assert sevens["label"][:] == [7] * 100
    unlabelled = datasets.load_dataset(str(tmp_path / "unlabelled"), split="train", cache_dir=cache)
    assert unlabelled.column_names == ["image", "seed"]


def test_parquet_goes_to_any_url_of_fsspec(tmp_path):
    pytest.importorskip("pyarrow")
    fsspec = pytest.importorskip("fsspec")
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0") as threads:
        for url in ("memory://digits", (tmp_path / "digits").as_uri()):
            assert cluster.generate(threads, url, count=300, shard_size=100, format="parquet")[:3] == (3, 3, 300)
            assert cluster.generate(threads, url, count=300, shard_size=100, format="parquet")[:3] == (3, 0, 0)
        memory = fsspec.filesystem("memory")
        memory.get("/digits", str(tmp_path / "copy"), recursive=True)
        assert files(tmp_path / "copy") == files(tmp_path / "digits")
        check_sums(tmp_path / "copy")
        for url, expected in [
            ("nowhere://digits", "nowhere://digits: a URL that fsspec knows expected"),
            ("memory://digits[1]", r"memory://digits\[1\]: a URL without the characters \* \? \[ expected"),
        ]:
            with pytest.raises(ValueError, match=expected):
                cluster.generate(threads, url, count=300, format="parquet")


def test_parquet_goes_to_a_folder_with_brackets_in_its_name(client, tmp_path):
    pytest.importorskip("pyarrow")
    cluster.generate(client, tmp_path / "digits[1]", count=200, shard_size=100, format="parquet")
    check_sums(tmp_path / "digits[1]")


def test_parquet_files_that_cannot_be_read_are_named_and_not_replaced(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    data_set = _generate._new_data_set(_generate._job(str(tmp_path), 20, 0, 10, None, None, "f32", None, "parquet"))
    assert sum(map(data_set.draw, data_set.begin())) == 20 and data_set.finish()
    before = files(tmp_path)

    def fault(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(data_set._files, "cat_file", fault)
    with pytest.raises(OSError, match="manifest.json: cannot be read: Input/output error"):
        data_set.begin()
    with pytest.raises(OSError, match="digests/train-00000-of-00002.sha256: cannot be read: Input/output error"):
        data_set.finish()
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("code", "error", "expected"),
    [
        ("import json; json.loads('{')", ValueError, "Expecting property name"),
        ("b'\\xff'.decode()", ValueError, "'utf-8' codec can't decode byte 0xff"),
        ("open('/nowhere/file')", FileNotFoundError, "No such file or directory: '/nowhere/file'"),
        ("raise ConnectionResetError('reset')", OSError, "reset"),
    ],
)
def test_errors_of_any_class_come_back_with_the_workers_address(client, code, error, expected):
    with pytest.raises(error, match=f"worker tcp://.*: .*{expected}"):
        list(_tasks.run(client, lambda code, _: exec(code), code, [0]))


def fails_soon(client, out, fault, error, sentence):
    """Draws a shard of a million images; `fault` happens meanwhile."""

    def wait():
        while not list(out.glob("data/.runtime-*")):
            time.sleep(0.05)
        fault()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    with pytest.raises(error, match=sentence):
        cluster.generate(client, out, count=1_000_000, shard_size=1_000_000)
    thread.join()


def test_a_task_whose_workers_always_die_and_a_lost_scheduler_are_named(tmp_path):
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as machine:
        machine.scheduler.allowed_failures = 0
        with distributed.Client(machine, timeout=2) as client:
            sentence = "task 0: a worker that survives it expected, 1 died, the last one at tcp://"
            fails_soon(client, tmp_path / "a", lambda: kill_a_worker(client), RuntimeError, sentence)
            client.wait_for_workers(1, timeout=60)
            machine.scheduler.allowed_failures = 3
            sentence = "the connection to the scheduler was lost; the same call goes on"
            fails_soon(client, tmp_path / "b", machine.close, ConnectionError, sentence)


@pytest.mark.parametrize("format", ["idx", "parquet"])
def test_another_plan_is_named(client, tmp_path, format):
    plan = {"count": 40, "shard_size": 10, "format": format}
    cluster.generate(client, tmp_path, **plan)
    before = files(tmp_path)
    for other, expected in [
        ({"seed": 1}, "manifest.json: seed 1 expected, 0 found; repeat the options of the first call"),
        ({"shard_size": 20}, "shard_size 20 expected, 10 found"),
        ({"digit": 3}, "class 3 expected, null found"),
        ({"precision": "int8"}, 'precision "int8" expected, "f32" found'),
        ({"model": MODELS / "seed.onnx"}, r"classes \[\] expected"),
        ({"format": "parquet" if format == "idx" else "idx"}, "format"),
    ]:
        with pytest.raises(ValueError, match=expected):
            cluster.generate(client, tmp_path, **{**plan, **other})
    assert files(tmp_path) == before


def test_wrong_arguments_are_errors_of_one_sentence(client, tmp_path):
    for options, expected in [
        ({"count": -1}, "count: 0 to 18446744073709551615 expected, -1 found"),
        ({"count": 0}, "count: at least 1 expected, 0 found"),
        ({"count": 10**6, "shard_size": 1}, "shard size 1: 11 to 4294967295 expected, for at most 99999 shards"),
        ({"count": 2, "seed": 2**64 - 1}, "seed 18446744073709551615: too large for 2 images"),
        ({"count": 2, "digit": 10}, "digits: 0 to 9 expected, 10 found"),
        ({"count": 2, "precision": "f16"}, "precision: 'f32' or 'int8' expected"),
        ({"count": 2, "format": "csv"}, "format: 'idx' or 'parquet' expected, 'csv' found"),
        ({"count": 2, "out": "s3://digits"}, "s3://digits: a folder expected for the format 'idx'"),
    ]:
        with pytest.raises(ValueError, match=expected):
            cluster.generate(client, **{"out": tmp_path / "out", **options})
    with pytest.raises(FileNotFoundError, match="none.onnx"):
        cluster.generate(client, tmp_path / "out", count=2, model=tmp_path / "none.onnx")
    assert list(tmp_path.iterdir()) == []


def test_workers_with_another_package_are_named_before_anything_is_drawn(client, tmp_path):
    worker = next(iter(client.scheduler_info()["workers"]))

    def refuses(expected):
        with pytest.raises(RuntimeError, match=f"worker {worker}: {expected}"):
            cluster.generate(client, tmp_path / "out", count=20, shard_size=10)
        assert list(tmp_path.iterdir()) == []

    client.run(setattr, mnist_gan, "__version__", "9.9.9", workers=[worker])
    refuses(f"mnist-gan {mnist_gan.__version__} expected as on the client, 9.9.9 found; install the same package")
    client.run(setattr, mnist_gan, "__version__", mnist_gan.__version__, workers=[worker])

    code = "import mnist_gan._native as n; n.Built_in = n.Model; n.Model = lambda: n.Built_in.read(%r)"
    client.run(exec, code % str(MODELS / "seed.onnx"), {}, workers=[worker])
    refuses("the built-in generator [0-9a-f]{64} expected as on the client, [0-9a-f]{64} found")
    client.run(exec, "import mnist_gan._native as n; n.Model = n.Built_in", {}, workers=[worker])

    kept, place = "modules['kept']", "modules['mnist_gan.cluster._generate']"
    client.run(exec, f"import sys; modules = sys.modules; {kept} = {place}; {place} = None", {}, workers=[worker])
    refuses(f'mnist-gan {mnist_gan.__version__} with Dask expected; pip install "mnist-gan.cluster." there')
    client.run(exec, f"import sys; modules = sys.modules; {place} = {kept}", {}, workers=[worker])
    cluster.generate(client, tmp_path / "out", count=20, shard_size=10)


def test_a_worker_that_joins_later_is_checked_too(client, tmp_path, monkeypatch):
    client.run(setattr, mnist_gan, "__version__", "9.9.9")
    monkeypatch.setattr(_tasks, "check_workers", lambda *_: None)
    with pytest.raises(RuntimeError, match="worker tcp://.*: mnist-gan .* expected as on the client, 9.9.9 found"):
        cluster.generate(client, tmp_path / "out", count=20, shard_size=10)
    client.run(setattr, mnist_gan, "__version__", mnist_gan.__version__)
    assert cluster.generate(client, tmp_path / "out", count=20, shard_size=10)[:2] == (2, 2)


def test_a_folder_that_workers_do_not_share_is_named(client, tmp_path):
    job = _generate._job(str(tmp_path / "none"), 20, 0, 10, None, None, "f32", None, "idx")
    with pytest.raises(ValueError, match="worker tcp://.*none/manifest.json: not found on this machine; all workers must share"):
        list(_tasks.run(client, _generate.draw, job, [0]))
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="worker tcp://.*memory://here/manifest.json: not found on this machine"):
        cluster.generate(client, "memory://here", count=20, format="parquet")


@pytest.fixture
def mount(tmp_path):
    """Mounts a tmpfs with options; only root can."""
    mounted = []

    def mount(options):
        folder = tmp_path / f"tmpfs-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mount, as root, expected: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("format", ["idx", "parquet"])
def test_a_full_disk_and_a_read_only_one_lose_nothing(client, mount, format):
    small = mount("size=8m")
    plan = {"count": 9000, "shard_size": 3000, "format": format}
    (small / "ballast").write_bytes(bytes(7_000_000))
    expected = {"idx": "out: 8 MB free expected", "parquet": "out/data/train.*: cannot be written: No space left on device"}
    with pytest.raises((OSError, ValueError), match=expected[format]):
        cluster.generate(client, small / "out", **plan)
    (small / "ballast").unlink()
    cluster.generate(client, small / "out", **plan)
    check_sums(small / "out")
    assert [path for path in files(small / "out") if ".tmp" in path] == []

    before = files(small / "out")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(OSError, match="other.*: cannot be created: Read-only file system"):
        cluster.generate(client, small / "other", count=300, format=format)
    assert files(small / "out") == before


def test_a_scheduler_that_does_not_answer_and_one_without_workers_are_named(monkeypatch, tmp_path):
    command = [*PROGRAM, "generate", tmp_path / "out", "--count", "9", "--scheduler", "nonsense://"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: nonsense://: a Dask scheduler expected"), done.stderr
    monkeypatch.setattr(_tasks, "CONNECT_SECONDS", 1)
    with pytest.raises(ConnectionError, match="tcp://127.0.0.1:9: a Dask scheduler expected within 1 s, none found"):
        with _tasks.connect("tcp://127.0.0.1:9", None):
            pass
    monkeypatch.setattr(_tasks, "WORKER_SECONDS", 1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty, distributed.Client(empty) as nobody:
        with pytest.raises(RuntimeError, match="tcp://.*: a worker expected within 1 s, none found"):
            cluster.generate(nobody, tmp_path / "out", count=9)
    assert list(tmp_path.iterdir()) == []


def test_the_program_draws_on_workers_of_its_own(tmp_path):
    command = [*PROGRAM, "generate", "out", "--count", "900", "--shard-size", "300", "--scheduler", "local", "--workers", "1"]
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads(done.stdout)["drawn"] == 3
    runtime("verify", tmp_path / "out")
    refused = subprocess.run([*command, "--seed", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1, refused.stderr


def test_the_script_to_copy_draws_on_a_running_cluster(machine, tmp_path):
    script = ROOT / "tests" / "cluster" / "shards.py"
    subprocess.run([sys.executable, script, machine.scheduler_address, "out", "900"], cwd=tmp_path, check=True)
    runtime("verify", tmp_path / "out")


def test_the_progress_line_has_tasks_images_per_second_and_time_left(capsys):
    with _progress.Progress(4, "shards", True) as bar:
        bar.skip(1)
        bar._start -= 10
        bar.add(1000)
        assert bar.line().endswith("2/4 shards, 100 images/s, 0:00:20 left"), bar.line()
        assert bar.line().startswith("█" * 20 + " " * 20)
    assert "1/4 shards" in capsys.readouterr().err
    _progress.Progress(4, "runs", None).add()
    assert capsys.readouterr().err == ""  # no terminal


@pytest.fixture
def few_digits(tmp_path):
    """A folder with the IDX files of 200 training images and 200 test images."""
    data = tmp_path / "digits"
    for part, seed in (("train", 0), ("t10k", 1000)):
        data.mkdir(exist_ok=True)
        runtime("gen", "--seed", seed, "--count", 200, "--format", "idx", "--out", data / f"{part}-images-idx3-ubyte")
    return data


@pytest.mark.skipif(_sweep._program() is None, reason="the program trainer is not beside Python or on PATH")
def test_a_sweep_ends_in_the_runs_of_the_trainer_whose_workers_die(machine, client, tmp_path, few_digits):
    options = ["--device", "cpu", "--threads", "1", "--epochs", "2", "--score-every", "2", "--data", str(few_digits)]
    expected = [_sweep._program(), "sweep", "--seeds", "4..7", "--dir", tmp_path / "expected", "--json", "--", *options]
    summary = json.loads(subprocess.run(expected, check=True, capture_output=True).stdout)

    def kill():
        while not list((tmp_path / "found").glob("*/config.json")):
            time.sleep(0.05)
        kill_a_worker(client)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = cluster.sweep(client, range(4, 7), options=options, folder=tmp_path / "found")
    killer.join()
    assert found.summary == summary and found.failed == {}
    assert "seed-00006" in str(found) and "3 of 3 seeds finished; FD: best " in found.table
    for seed in range(4, 7):
        run = f"seed-0000{seed}/g.onnx"
        assert (tmp_path / "found" / run).read_bytes() == (tmp_path / "expected" / run).read_bytes()

    # A run that is done is skipped, and one that fails does not stop the others.
    (tmp_path / "found" / "seed-00005" / "g.onnx").unlink()
    checkpoints = tmp_path / "found" / "seed-00005" / "checkpoints"
    for path in checkpoints.iterdir():
        path.write_bytes(b"")
    command = [*PROGRAM, "sweep", "--seeds", "4..7", "--dir", tmp_path / "found", "--scheduler", machine.scheduler_address]
    done = subprocess.run([*command, "--json", "--", *options], capture_output=True, text=True)
    again = json.loads(done.stdout)
    assert list(again["failed"]) == ["5"] and "damaged" in again["failed"]["5"], again
    assert (done.returncode, done.stderr) == (1, f"error: {again['failed']['5']}\n")
    with pytest.raises(ValueError, match="--lr 0.1 .the run has 0.002. contradicts"):
        cluster.sweep(client, range(4, 7), options=[*options, "--lr", "0.1"], folder=tmp_path / "found")
    with pytest.raises(ValueError, match="seeds: consecutive ones"):
        cluster.sweep(client, range(0, 9, 2), folder=tmp_path / "found")


@pytest.mark.skipif(_sweep._program() is None, reason="the program trainer is not beside Python or on PATH")
def test_a_worker_without_the_trainer_or_with_another_version_is_named(client, tmp_path):
    worker = next(iter(client.scheduler_info()["workers"]))
    code = "import sys, mnist_gan.cluster._sweep as s; s._found = s._program, s._version; s._program = lambda: None"
    client.run(exec, code, {}, workers=[worker])
    with pytest.raises(RuntimeError, match=f"worker {worker}: the program trainer expected .*pip install mnist-gan-trainer there"):
        cluster.sweep(client, range(2), folder=tmp_path / "sweep")
    code = "import mnist_gan.cluster._sweep as s; s._program = s._found[0]; s._version = lambda: 'trainer 9'"
    client.run(exec, code, {}, workers=[worker])
    with pytest.raises(RuntimeError, match="worker tcp://.* expected as on another worker, .* found; install the same program"):
        cluster.sweep(client, range(2), folder=tmp_path / "sweep")
    client.run(exec, "import mnist_gan.cluster._sweep as s; s._program, s._version = s._found", {}, workers=[worker])


def test_a_trainer_that_is_killed_and_says_nothing_is_a_failed_run(client, tmp_path):
    program = tmp_path / "trainer"
    program.write_text("""#!/bin/sh
case "$*" in
*--version*) echo trainer 0 ;;
*--part*) echo '{"finished": []}' ;;
*) kill -9 $$ ;;
esac
""")
    program.chmod(0o755)
    with trainer_of_workers(client, program):
        found = cluster.sweep(client, range(2), folder=tmp_path / "sweep")
        assert found.failed == dict.fromkeys(range(2), "trainer: exit status 0 expected, -9 found")
        program.write_text("no program")
        with pytest.raises(RuntimeError, match="worker tcp://.*: .Errno 8. Exec format error: '.*/trainer'"):
            cluster.sweep(client, range(2), folder=tmp_path / "sweep")


@contextmanager
def trainer_of_workers(client, program):
    """Workers take `program` for trainer meanwhile."""
    code = f"import mnist_gan.cluster._sweep as s; s._kept = s._program; s._program = lambda: {str(program)!r}"
    client.run(exec, code, {})
    try:
        yield
    finally:
        client.run(exec, "import mnist_gan.cluster._sweep as s; s._program = s._kept", {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("generate out --count 0", "argument --count: at least 1 expected, '0' found"),
        ("generate out --count 9 --seed -1", "argument --seed: at least 0 expected, '-1' found"),
        ("generate out --count 9 --shard-size many", "argument --shard-size: at least 1 expected, 'many' found"),
        ("generate out --count 9 --digit 12", "argument --digit: invalid choice: 12"),
        ("generate out --count 9 --workers 2", "--workers: only with --scheduler local"),
        ("sweep --seeds 5", "argument --seeds: A..B with A below B expected, such as 0..1000, '5' found"),
        ("sweep --seeds 5..5", "argument --seeds: A..B with A below B expected, such as 0..1000, '5..5' found"),
    ],
)
def test_wrong_options_of_the_program_exit_with_2(capsys, options, expected):
    with pytest.raises(SystemExit) as stopped:
        __main__.main([*options.split(), "--scheduler", "tcp://127.0.0.1:9"])
    assert stopped.value.code == 2 and expected in capsys.readouterr().err
