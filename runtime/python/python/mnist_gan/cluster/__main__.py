"""The command line of mnist_gan.cluster: `python -m mnist_gan.cluster generate OUT --count 1000000 --scheduler local`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Callable

from . import generate, sweep


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit code: 0, 1 for failure, 2 for an unknown option or a wrong value of one option."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.workers is not None and options.scheduler != "local":
        parser.error("--workers: only with --scheduler local")
    logging.disable(logging.ERROR)  # Dask logs many lines for an error that this program prints as one sentence
    try:
        from ._tasks import connect  # needs Dask

        with connect(options.scheduler, options.workers) as client:
            return int(options.run(client, options))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    description = "Data sets and training runs on a Dask cluster."
    parser = argparse.ArgumentParser(prog="python -m mnist_gan.cluster", description=description)
    cluster = argparse.ArgumentParser(add_help=False)
    where = "tcp://HOST:PORT, or local for processes on this machine"
    cluster.add_argument("--scheduler", required=True, metavar="ADDRESS", help=where)
    cluster.add_argument("--workers", type=_at_least(1), metavar="N", help="with --scheduler local: processes, by default one per core")
    cluster.add_argument("--json", action="store_true", help="print the result as a JSON object")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    draw = commands.add_parser("generate", parents=[cluster], help="draw a data set in shards")
    draw.add_argument("out", metavar="OUT", help="a folder that all workers share; with --format parquet also a URL of fsspec")
    draw.add_argument("--count", type=_at_least(1), required=True, metavar="N", help="images in all")
    draw.add_argument("--seed", type=_at_least(0), default=0, help="the seed of the first image (default: 0)")
    draw.add_argument("--shard-size", type=_at_least(1), default=1_000_000, metavar="N", help="images of each shard (default: 1,000,000)")
    only = draw.add_mutually_exclusive_group()
    only.add_argument("--digit", type=int, choices=range(10), metavar="DIGIT", help="draw only this digit")
    only.add_argument("--class", dest="class_", metavar="NAME", help="draw only this class, by its name or number")
    draw.add_argument("--precision", choices=["f32", "int8"], default="f32", help="arithmetic (default: f32)")
    draw.add_argument("--model", metavar="FILE", help="the ONNX file of another generator")
    draw.add_argument("--format", choices=["idx", "parquet"], default="idx", help="file format (default: idx)")
    draw.set_defaults(run=_generate)

    usage = "%(prog)s --seeds A..B --scheduler ADDRESS [options] [-- OPTIONS]"
    train = commands.add_parser("sweep", parents=[cluster], help="train many seeds", usage=usage)
    train.add_argument("--seeds", type=_seeds, required=True, metavar="A..B", help="from A to B - 1")
    train.add_argument("--recipe", help="seed, tuned or best")
    train.add_argument("--dir", default="sweep", help="the folder of the runs, which all workers share (default: sweep)")
    train.add_argument("options", nargs="*", metavar="OPTIONS", help="options of trainer for all runs")
    train.set_defaults(run=_sweep)
    return parser


def _generate(client, options) -> int:  # type: ignore[no-untyped-def]
    names = ("count", "seed", "shard_size", "digit", "class_", "precision", "model", "format")
    drawn = generate(client, options.out, **{name: getattr(options, name) for name in names})
    if options.json:
        print(json.dumps(drawn._asdict()))
    else:
        rate = drawn.images / max(drawn.seconds, 1e-9)
        print(f"{options.out}: {drawn.drawn} of {drawn.shards} shards drawn, the others were there; {rate:,.0f} images/s")
    return 0


def _sweep(client, options) -> int:  # type: ignore[no-untyped-def]
    result = sweep(client, options.seeds, options.recipe, options=options.options, folder=options.dir)
    print(json.dumps({**result.summary, "failed": result.failed}) if options.json else result.table.rstrip())
    for sentence in result.failed.values():
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if result.failed else 0


def _at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"at least {least} expected, {text!r} found")
        return int(text)

    return number


def _seeds(text: str) -> range:
    first, _, end = text.partition("..")
    if first.isdecimal() and end.isdecimal() and int(first) < int(end):
        return range(int(first), int(end))
    raise argparse.ArgumentTypeError(f"A..B with A below B expected, such as 0..1000, {text!r} found")


if __name__ == "__main__":
    sys.exit(main())
