"""The verbs that train: `medil train` and `medil train-ldm`, which are asked for alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from medil.errors import InputError
from medil.system.files import make_folder

FILE = click.Path(path_type=Path)
COUNT = click.IntRange(1)
OPTIONS = (
    click.option("--preset", metavar="NAME", help="Which model to train [default: tiny]."),
    click.option("-o", "--output", type=FILE, required=True, help="A folder for the run."),
    click.option("--seed", type=int, help="Of weights, data and noise [default: 0]."),
    click.option("--resume", is_flag=True, help="Go on with the folder's run, as it was set up."),
    click.option("--minutes", type=float, help="Wall time of the run [default: preset's]."),
    click.option("--steps", type=COUNT, help="Length of the run in steps instead."),
    click.option("--time-budget", metavar="TIME", help="Stop this call after 90s, 9m or 1.5h."),
    click.option("--batch", type=COUNT, help="Patches or latents a step, over all processes."),
    click.option("--accumulate", type=COUNT, help="Parts in which to work through them."),
    click.option("--devices", type=COUNT, help="Processes on this machine [default: 1]."),
    click.option("--accelerator", type=click.Choice(["auto", "cpu", "cuda"]), default="auto"),
    click.option("--from", "warm_start_from", type=FILE, metavar="WEIGHTS", help="Begin there."),
)


def training_options(verb: Callable) -> Callable:
    """Add what every run is asked for to a verb."""
    for option in reversed(OPTIONS):
        verb = option(verb)
    return verb


def prepare(output: Path, time_budget: str | None, asked: dict[str, Any]) -> float:
    """Check what is asked for, make the folder; seconds that this call may take.

    Raises:
        InputError: A length that is none, two lengths, nothing to resume, or no folder.
    """
    from medil.training.launch import duration_s

    minutes = asked["minutes"]
    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes must be above zero, not {minutes:g}.")
    if minutes is not None and asked["steps"] is not None:
        raise InputError("--minutes and --steps both say how long the run is; say only one.")
    if asked["resume"] and not output.is_dir():
        raise InputError(f"there is no run to resume in {output}.")
    budget_s = duration_s(time_budget) if time_budget else math.inf
    make_folder(output)
    return budget_s


@click.command(epilog="Example: medil train --preset tiny -o runs/tiny --time-budget 9m")
@training_options
@click.option("--store", type=FILE, metavar="FOLDER", help="Real scans: yours, by `medil store`.")
@click.option("--real-share", type=click.FloatRange(0, 1), help="Of patches [preset's]; 1: all.")
def train(output: Path, preset: str | None, time_budget: str | None, **asked: Any) -> None:
    """Train a model in two stages: global, then local patches.

    Synthetic heads are drawn for it; --real-share says how many patches come from real
    scans instead: published ones, or those of --store, which a resumed run remembers.

    Ctrl-C saves and ends; --resume goes on, for longer if --minutes or --steps say more.
    Several processes: --devices, torchrun or SLURM.
    """
    from medil.config import preset as find_preset

    find_preset(preset or "tiny")
    from medil.system.workers import able
    from medil.training.autoencoder import main_train

    budget_s = prepare(output, time_budget, asked)
    main_train(output, preset, time_budget_s=budget_s, processes=able(), **asked)


@click.command(
    "train-ldm", epilog="Example: medil train-ldm --preset tiny -o runs/ldm --time-budget 9m"
)
@training_options
@click.option("--heads", type=COUNT, help="How many to draw [default: preset's].")
def train_ldm(output: Path, preset: str | None, time_budget: str | None, **asked: Any) -> None:
    """Train a latent diffusion model on heads drawn on the cohort's label maps.

    Heads are drawn and encoded once, into the run's folder; then it trains. Ctrl-C saves and
    ends; --resume goes on, for longer if --minutes or --steps say more.
    """
    from medil.config import flow_preset

    flow_preset(preset or "tiny")
    from medil.diffusion.training import main_train_flow
    from medil.system.workers import able

    budget_s = prepare(output, time_budget, asked)
    main_train_flow(output, preset, time_budget_s=budget_s, processes=able(), **asked)
