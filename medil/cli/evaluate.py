"""`medil evaluate`: the evaluation suite on a user's own scans, run from the checkout.

The suite is no part of the package, so this verb starts it as a program of its own, passes
on what was typed and ends as it ended.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from medil.errors import InputError

FILE = click.Path(path_type=Path)
PATIENCE_S = 20.0  # after Ctrl-C, for processes to end by themselves
NEEDED = ("pandas", "skimage", "matplotlib", "itables", "papermill", "jupyter_book")


@click.command(epilog="Example: medil evaluate scans -o report")
@click.argument("inputs", nargs=-1, required=True, type=FILE, metavar="FILES_OR_FOLDER_OR_CSV...")
@click.option("-o", "--output", type=FILE, required=True, help="A folder; made if missing.")
@click.option("--preset", metavar="NAME", help="A released model [default: tiny].")
@click.option("--weights", type=FILE, help="Weights that you trained.")
@click.option("--coder", "coders", multiple=True, metavar="FILE.py:NAME", help="A model of yours.")
@click.option("--profile", type=click.Choice(["quick", "gpu", "paper"]), default="quick")
@click.option("--workers", type=click.IntRange(0), help="Processes [default: one a core].")
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask scheduler that runs the work.")
@click.option("--force", is_flag=True, help="Forget what the report holds and measure again.")
def evaluate(
    inputs: tuple[Path, ...],
    output: Path,
    preset: str | None,
    weights: Path | None,
    coders: tuple[str, ...],
    profile: str,
    workers: int | None,
    scheduler: str | None,
    force: bool,
) -> None:
    """Score the release on your own scans and write a report (in a checkout).

    Inputs are images, folders of images, or CSV tables with a column path (and, if you like,
    subject and mask). A folder without images is searched in its folders. Run again, it
    measures only what is new.
    """
    root = checkout()
    if preset and weights:
        raise InputError("--preset and --weights both name a model; say only one.")
    command = [str(path.absolute()) for path in inputs]
    command += ["--out", str(output.absolute()), "--profile", profile]
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
    """The root of the checkout, if it and all that the suite needs are here.

    Raises:
        InputError: What is missing, and how to get it.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "eval" / "evaluate").is_dir():
        raise InputError(
            "the evaluation suite is no part of the package; clone the repository, run "
            "make install in it, and use its .venv/bin/medil."
        )
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(
            f"the report needs {', '.join(missing)}; install with: pip install -e '.[book]'"
        )
    return root


def run_program(command: Sequence[str], folder: Path) -> int:
    """Run a program to its end and give its exit code; Ctrl-C is passed on and waited for.

    Args:
        command: Its arguments, the program first.
        folder: Where it runs.

    Returns:
        The exit code.
    """
    with subprocess.Popen(command, cwd=folder) as program:
        try:
            return program.wait()
        except KeyboardInterrupt:  # a terminal tells both, `kill` this process alone
            return _stopped(program)
        finally:
            if program.poll() is None:
                program.terminate()


def _stopped(program: subprocess.Popen) -> int:
    try:
        return program.wait(PATIENCE_S / 4)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGINT)
    try:
        return program.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        program.terminate()
        return program.wait()
