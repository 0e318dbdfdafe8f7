"""`medil book`: execute the notebooks that changed and render the book, from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import click

from medil.errors import InputError
from medil.system.children import tied


@click.command(epilog="Example: medil book --only 04,05")
@click.option(
    "--profile", type=click.Choice(["quick", "gpu", "paper"]), default="quick", show_default=True,
    help="Size of the experiments on the pages.",
)  # fmt: skip
@click.option(
    "--only", default="", metavar="NUMBERS",
    help="Execute these notebooks alone and render a draft, with the other pages as they are.",
)  # fmt: skip
def book(profile: str, only: str) -> None:
    """Build the book from a checkout.

    Executes the notebooks that changed since they were executed last; after a killed build it
    goes on with the notebook at which it was.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "dodo.py").is_file():
        raise InputError("the book is built from a checkout; clone the repository, then: make book")
    chosen = choose(only, (path.stem for path in root.glob("notebooks/[0-9][0-9]_*.ipynb")))
    if find_spec("doit") is None:
        raise InputError("the book needs doit; install it with: pip install -e '.[book]'")
    environment = {**os.environ, "PROFILE": profile, "ONLY": ",".join(chosen)}
    built = subprocess.run([sys.executable, "-m", "doit"], cwd=root, env=environment, **tied())
    if built.returncode:
        raise click.exceptions.Exit(built.returncode)
    name, folder = ("draft", "draft") if chosen else ("book", "html")
    click.echo(f"The {name} is at {root / '_build' / folder / 'index.html'}")


def choose(numbers: str, stems: Iterable[str]) -> list[str]:
    """Names of the notebooks that numbers with commas name; none where there are no numbers.

    Raises:
        InputError: Between two commas stands something else.

    Example:
        >>> choose("5, 04", ["04_two_stage_training", "05_ablation", "06_latent_consistency"])
        ['05_ablation', '04_two_stage_training']
    """
    by_number = {str(int(stem[:2])): stem for stem in sorted(stems)}
    wanted = [number.strip() for number in numbers.split(",")] if numbers else []
    for number in wanted:
        if number.removeprefix("0") not in {*by_number, ""} or not number:
            known = ", ".join(by_number)
            raise InputError(f"there is no notebook {number!r}; there are {known}.")
    return [by_number[number.removeprefix("0") or "0"] for number in wanted]
