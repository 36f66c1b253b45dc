"""Data sets and training runs on a Dask cluster: `pip install "mnist-gan[cluster]"`.

>>> from distributed import Client, LocalCluster
>>> from mnist_gan import cluster
>>> with LocalCluster(n_workers=2, threads_per_worker=1) as machine, Client(machine) as client:  # doctest: +SKIP
...     cluster.generate(client, "digits", count=10_000_000)
...     cluster.sweep(client, range(1000), recipe="tuned", options=["--epochs", "20"])

The client and all workers need the same version of the package and one shared file system, except for Parquet at a URL.
`python -m mnist_gan.cluster --help` shows the same as a program.
"""

from ._generate import Drawn, generate
from ._sweep import Sweep, sweep

__all__ = ["Drawn", "Sweep", "generate", "sweep"]
