"""Many tasks on a Dask cluster: the connection, the check of the workers, the results, and errors as sentences."""
# mypy: allow-untyped-calls
# Because Dask's functions have no types.

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import Any, Callable, TypeVar

import mnist_gan

from ._errors import with_text

try:
    from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker
except ModuleNotFoundError:
    raise ModuleNotFoundError('mnist_gan.cluster: Dask expected, none found; pip install "mnist-gan[cluster]"') from None

T = TypeVar("T")
R = TypeVar("R")

TASKS_AT_ONCE = 1000
"""Tasks that the scheduler knows at a time, which bounds its memory and the client's."""
CONNECT_SECONDS = 10
WORKER_SECONDS = 60


@contextmanager
def connect(scheduler: str, workers: int | None) -> Iterator[Client]:
    """A client of the scheduler at an address such as tcp://10.0.0.1:8786, or with "local" of new worker processes on this machine,
    as many as `workers` or the cores.

    Raises ConnectionError if nothing answers within 10 s.
    """
    if scheduler == "local":
        quiet = logging.CRITICAL  # errors of tasks reach the client
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=quiet) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        reason = f"{error.__class__.__name__}: {error}".splitlines()[0]
        raise ConnectionError(f"{scheduler}: a Dask scheduler expected within {CONNECT_SECONDS} s, none found ({reason})") from None
    with client:
        yield client


def check_workers(client: Client, fault: Callable[[T], str | None], argument: T) -> None:
    """Raises RuntimeError with the first worker for which `fault(argument)` returns a sentence."""
    for worker, sentence in answers(client, fault, argument).items():
        if sentence:
            raise RuntimeError(f"worker {worker}: {sentence}")


def answers(client: Client, function: Callable[..., R], *arguments: Any) -> dict[str, R]:
    """What `function(*arguments)` returns on each worker, by address. Waits for the first worker.

    Raises RuntimeError if there is no worker, or if the function fails on one.
    """
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        raise RuntimeError(f"{_address(client)}: a worker expected within {WORKER_SECONDS} s, none found") from None
    found: dict[str, R] = client.run(function, *arguments, on_error="return")
    for worker, answer in found.items():
        if isinstance(answer, Exception):
            # A worker that cannot load the function sends the text of its error, of which Dask makes a plain Exception.
            is_missing = isinstance(answer, ImportError) or type(answer) is Exception
            raise RuntimeError(f"worker {worker}: {_not_installed(answer) if is_missing else answer}")
    if not found:
        raise RuntimeError(f"{_address(client)}: a worker expected, the last one has died; the same call goes on")
    return found


def run(client: Client, function: Callable[[T, int], R], argument: T, numbers: Iterable[int]) -> Iterator[R]:
    """The results of `function(argument, number)` in order of completion. A task whose worker dies is given to another one.

    Raises what `function` raises, with the worker's address. Tasks that have not begun are cancelled.
    """
    # A task makes the argument, so that it is made again if the worker that holds it dies. Scattered data would be lost.
    shared = client.submit(copy.copy, argument, pure=False)
    waiting = iter(numbers)
    futures: dict[Future[Any], int] = {}

    def submit(number: int) -> Future[Any]:
        future = client.submit(_on_worker, function, shared, number, pure=False)
        futures[future] = number
        return future

    completed = as_completed([submit(number) for number in islice(waiting, TASKS_AT_ONCE)])
    try:
        for future in completed:
            result: R = future.result()
            del futures[future]
            yield result
            for number in islice(waiting, 1):
                completed.add(submit(number))
    except KilledWorker as error:
        raise RuntimeError(
            f"task {futures[future]}: a worker that survives it expected, {error.allowed_failures + 1} died, the last one at "
            f"{error.last_worker.address}; the same call goes on"
        ) from None
    except CancelledError:
        raise ConnectionError(f"{_address(client)}: the connection to the scheduler was lost; the same call goes on") from None
    except ModuleNotFoundError as error:
        raise RuntimeError(f"a worker: {_not_installed(error)}") from None
    finally:
        if client.status == "running":
            client.cancel(list(futures))


def _on_worker(function: Callable[[T, int], R], shared: T, number: int) -> R:
    try:
        return function(shared, number)
    except (OSError, ValueError, RuntimeError) as error:
        raise with_text(error, f"worker {get_worker().address}: {error}") from None


def _not_installed(error: Exception) -> str:
    return f'mnist-gan {mnist_gan.__version__} with Dask expected; pip install "mnist-gan[cluster]" there ({error})'


def _address(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler else "scheduler"
