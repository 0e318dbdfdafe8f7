"""Time rendering and weigh its memory, beside rivals and beside what the machine can do.

    python -m eval.speed --quick

Everything is measured in this one run, in turns (A B C, A B C, ...), as medians with the
lowest and the highest round. Each run appends its rows, and ends with every bar beside what
the newest rows say. With ``--device cuda`` the renderers run on a GPU instead.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from eval import rows, runner
from eval.speed import gpu, patches, rendering, tiles, training, whole
from eval.speed.findings import EXPERIMENT, Found, record
from eval.speed.report import printed
from eval.speed.sizes import SIZES, Sizes
from medil.errors import InputError

Part = Callable[[], list[Found]]


def parts(sizes: Sizes, release: str, device: str) -> dict[str, Part]:
    """What can be measured on a device, in the order of a run."""
    of_operators = {
        "rendering": partial(rendering.measure, sizes, device),
        "training": partial(training.measure, sizes, device),
    }
    if device == "cuda":
        return of_operators | {"brain": partial(gpu.measure, sizes, release)}
    return of_operators | {
        "tiles": partial(tiles.measure, sizes, release),
        "store": partial(patches.measure, sizes),
        "whole": partial(whole.compare, sizes, release),
        "growth": partial(whole.grow, sizes, release),
    }


def run(options: argparse.Namespace) -> None:
    """Measure, record each part at its end, print the table.

    Raises:
        InputError: No GPU, or a part that there is not.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no GPU here; leave --device cuda out.")
    path = runner.rows_file(options.out, EXPERIMENT)
    todo = parts(SIZES[options.profile], options.release, options.device)
    if unknown := set(options.parts) - set(todo):
        raise InputError(f"there is no part {min(unknown)}; choose from {', '.join(todo)}.")
    provenance = rows.Provenance.now(options.profile)
    for name in options.parts or todo:
        begun = time.perf_counter()
        added = record(todo[name](), path, provenance)
        seconds = time.perf_counter() - begun
        print(f"{name}: {seconds:.0f} s, {added} new rows", file=sys.stderr)
    print(printed(rows.read_rows(path)))


def options() -> argparse.ArgumentParser:
    """The command line's options."""
    made = runner.parser("eval.speed", __doc__)
    made.add_argument("--quick", action="store_const", const="quick", dest="profile",
                      help="the same as --profile quick")  # fmt: skip
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    names = "rendering, training, tiles, store, whole, growth; on a GPU brain"
    made.add_argument("--parts", nargs="+", default=(), metavar="PART", help=f"some of {names}")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    return runner.command(run, options(), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
