"""`medil evaluate`: the evaluation suite on a user's own scans, run from the checkout.

The suite is not part of the package, so this verb runs `python -m eval.evaluate` and ends with
its exit code.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from medil.cli.options import FILE, bids_suffix, folder, model_options
from medil.errors import InputError
from medil.system.children import tied

PATIENCE_S = 20.0  # time that processes have after Ctrl-C to end by themselves
NEEDED = ("pandas", "skimage", "matplotlib", "itables", "papermill", "jupyter_book")


@click.command(epilog="Example: medil evaluate scans -o report")
@click.argument("inputs", nargs=-1, required=True, type=FILE, metavar="PLACES...")
@folder
@model_options
@bids_suffix
@click.option(
    "--split", default="test", show_default=True, metavar="NAME",
    help="Lines of tables with this split, or with none, are taken.",
)  # fmt: skip
@click.option(
    "--coder", "coders", multiple=True, metavar="FILE.py:NAME",
    help="Another model: a function that returns coders; may be repeated.",
)  # fmt: skip
@click.option(
    "--profile", type=click.Choice(["quick", "gpu", "paper"]), default="quick", show_default=True,
    help="Name under which the rows are recorded.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(0), help="Processes [default: one per core].")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler that distributes the work.")
@click.option("--force", is_flag=True, help="Discard the results in the folder and measure again.")
def evaluate(
    inputs: tuple[Path, ...],
    output: Path,
    preset: str | None,
    weights: Path | None,
    suffix: str,
    split: str,
    coders: tuple[str, ...],
    profile: str,
    workers: int | None,
    scheduler: str | None,
    force: bool,
) -> None:
    """Measure a model on your own scans and write a report.

    Runs in a checkout. Places are images, quoted patterns, folders of images, folders of DICOM
    series, BIDS data sets, or tables (.csv, .tsv) with a column path and optionally subject,
    mask and split. A folder without images is searched in its subfolders. A second call
    measures only scans that are new.
    """
    root = checkout()
    if preset and weights:
        raise InputError("--preset and --weights both name a model; name only one.")
    command = [str(path.absolute()) for path in inputs]
    command += ["--out", str(output.absolute()), "--profile", profile]
    command += ["--suffix", suffix, "--split", split]
    command += ["--release", str(weights.absolute()) if weights else preset or "tiny"]
    for coder in coders:
        path, colon, name = coder.rpartition(":")
        command += ["--coder", f"{Path(path).absolute()}{colon}{name}"]
    command += [] if workers is None else ["--workers", str(workers)]
    command += ["--scheduler", scheduler] if scheduler else []
    command += ["--force"] if force else []
    code = run_program([sys.executable, "-m", "eval.evaluate", *command], root)
    if code:
        raise click.exceptions.Exit(code)


def checkout() -> Path:
    """The root of the checkout; refuses when it, or what the suite needs, is not here."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "eval" / "evaluate").is_dir():
        raise InputError(
            "the evaluation suite is not part of the package; clone the repository, run "
            "make install in it, and use its .venv/bin/medil."
        )
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(
            f"the report needs {', '.join(missing)}; install with: pip install -e '.[book]'"
        )
    return root


def run_program(command: Sequence[str], folder: Path) -> int:
    """Run a program in a folder and return its exit code; after Ctrl-C, wait for its end."""
    with subprocess.Popen(command, cwd=folder, **tied()) as program:
        try:
            return program.wait()
        except KeyboardInterrupt:  # a terminal signals both processes, `kill` only this one
            return _stopped(program)
        finally:
            if program.poll() is None:
                program.terminate()


def _stopped(program: subprocess.Popen[Any]) -> int:
    try:
        return program.wait(PATIENCE_S / 4)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGINT)
    try:
        return program.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        program.terminate()
        return program.wait()
