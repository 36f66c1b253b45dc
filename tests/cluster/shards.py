"""Draws a data set in shards on a Dask cluster. OUT is a folder that all machines share.

On one machine:                         dask scheduler
On each machine, a worker per core:     dask worker tcp://SCHEDULER:8786 --nworkers -1 --nthreads 1
Anywhere with the same folder:          python shards.py tcp://SCHEDULER:8786 OUT 1000000000

After a failure, start it again: whole shards are skipped. `runtime verify OUT` checks the result.
"""

import sys

from distributed import Client

from mnist_gan import cluster

scheduler, out, count = sys.argv[1:]
with Client(scheduler) as client:
    print(cluster.generate(client, out, count=int(count), seed=0))
