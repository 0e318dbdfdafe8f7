"""The verbs that train: `train`, `train-ldm` and `train-segmenter`, which share their options."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medil.cli.options import FILE, Verb
from medil.errors import InputError

if TYPE_CHECKING:
    from medil.training.run import Learner

COUNT = click.IntRange(1)
SHORT = {  # options that set one setting each
    "minutes": "train.minutes",
    "steps": "train.steps",
    "batch": "train.batch",
    "accumulate": "train.accumulate",
    "real_share": "data.real_share",
    "heads": "heads",
}
OPTIONS = (
    click.option("-o", "--output", type=FILE, required=True, help="Folder of the run."),
    click.option("--preset", metavar="NAME", help="Configuration to train [default: tiny]."),
    click.option(
        "--config", type=FILE, metavar="FILE.json",
        help="Settings that differ from the preset's, nested as in a run's config.json.",
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE...",
        help="Change one or more settings, such as model.latent_spacing_mm=3 train.batch=2.",
    ),
    click.option("--minutes", type=float, help="Wall time of the run [default: the preset's]."),
    click.option("--steps", type=COUNT, help="Length of the run in steps, instead of minutes."),
    click.option("--time-budget", metavar="TIME", help="End this call after 90s, 9m or 1.5h."),
    click.option("--resume", is_flag=True, help="Resume the run in the folder."),
    click.option(
        "--from", "warm_start_from", type=FILE, metavar="WEIGHTS",
        help="Start from these weights instead of random ones.",
    ),
    click.option(
        "--seed", type=int, help="Seeds weight initialisation, data order and noise [default: 0]."
    ),
    click.option("--batch", type=COUNT, help="Samples in a step, over all processes."),
    click.option(
        "--accumulate", type=COUNT,
        help="Gradient accumulation: split each batch into this many parts.",
    ),
    click.option("--processes", type=COUNT, help="Processes on this machine [default: 1]."),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
        help="Where to train [default: cuda if there, else cpu].",
    ),
)  # fmt: skip


class TrainingCommand(click.Command):
    """A command whose --set takes all the name=value words that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat --set before each further word that is a setting."""
        spread: list[str] = []
        for word in args:
            follows = len(spread) > 1 and spread[-2] == "--set" and "=" in spread[-1]
            is_setting = "=" in word and not word.startswith("-")
            spread += ["--set", word] if follows and is_setting else [word]
        return super().parse_args(ctx, spread)


def training_options(verb: Verb) -> Verb:
    """Add the options that these verbs share."""
    for option in reversed(OPTIONS):
        verb = option(verb)
    return verb


@click.command(
    cls=TrainingCommand,
    epilog="Example: medil train --preset tiny -o runs/tiny --time-budget 9m",
)
@training_options
@click.option("--store", type=FILE, metavar="FOLDER", help="Real scans, from `medil store`.")
@click.option(
    "--real-share", type=click.FloatRange(0, 1),
    help="Share of patches from real scans; 1: no synthetic heads [default: the preset's].",
)  # fmt: skip
def train(store: Path | None, **options: Any) -> None:
    """Train an autoencoder in two stages: whole volumes, then local patches.

    The training set is a cohort of synthetic heads, drawn into the run's folder, and real
    scans: published ones, or those of --store, which a resumed run remembers.

    Ctrl-C saves and stops the run; --resume continues it, up to a longer --minutes or --steps.
    Several processes: --processes, torchrun or SLURM.
    """
    from medil.training.autoencoder import AutoencoderLearner

    _train(AutoencoderLearner, source=store, **options)


@click.command(
    "train-ldm",
    cls=TrainingCommand,
    epilog="Example: medil train-ldm --preset tiny -o runs/ldm --time-budget 9m",
)
@training_options
@click.option(
    "--autoencoder", type=FILE, metavar="WEIGHTS",
    help="Learn the latents of these weights, from `medil train` [default: the released ones].",
)  # fmt: skip
@click.option("--heads", type=COUNT, help="Synthetic heads to train on [default: the preset's].")
def train_ldm(autoencoder: Path | None, **options: Any) -> None:
    """Train a latent diffusion model, from which `medil sample` samples heads.

    Synthetic heads are drawn and encoded once, into the run's folder; then the model trains.
    Ctrl-C saves and stops the run; --resume continues it, up to a longer --minutes or --steps.
    """
    from medil.diffusion.training import FlowLearner

    _train(FlowLearner, source=autoencoder, **options)


@click.command(
    "train-segmenter",
    cls=TrainingCommand,
    epilog="Example: medil train-segmenter -o runs/seg --time-budget 9m",
)
@training_options
@click.option(
    "--painted", type=FILE, metavar="FOLDER",
    help="Folder of the painted heads, which runs can share [default: in the run's].",
)  # fmt: skip
@click.option("--heads", type=COUNT, help="Synthetic heads to train on [default: the preset's].")
def train_segmenter(painted: Path | None, **options: Any) -> None:
    """Train the segmenter of tissue classes on painted heads, whose maps are exact.

    Heads are drawn once, into a folder; then the network trains on patches of them.
    Ctrl-C saves and stops the run; --resume continues it, up to a longer --minutes or --steps.
    """
    from medil.anatomy.training import SegmenterLearner

    _train(SegmenterLearner, source=painted, **options)


@click.command(
    "train-appearance",
    cls=TrainingCommand,
    epilog="Example: medil train-appearance -o runs/look --time-budget 9m",
)
@training_options
@click.option(
    "--autoencoder", type=FILE, metavar="WEIGHTS",
    help="Learn the latents of these weights, from `medil train` [default: the released ones].",
)  # fmt: skip
@click.option("--heads", type=COUNT, help="Synthetic heads to train on [default: the preset's].")
def train_appearance(autoencoder: Path | None, **options: Any) -> None:
    """Train the latent flow that is given a tissue map: how an anatomy looks.

    Synthetic heads are drawn, real train scans segmented, and all encoded once, into the run's
    folder; then the flow trains on patches of latents with their maps.
    Ctrl-C saves and stops the run; --resume continues it, up to a longer --minutes or --steps.
    """
    from medil.diffusion.appearance_training import AppearanceLearner

    _train(AppearanceLearner, source=autoencoder, **options)


def _train(
    kind: type[Learner], output: Path, preset: str | None, config: Path | None,
    settings: tuple[str, ...], time_budget: str | None, resume: bool, **options: Any,
) -> None:  # fmt: skip
    from medil.system.workers import process_count
    from medil.training.launch import duration_s
    from medil.training.start import start

    short = {name: options.pop(name) for name in SHORT if name in options}
    changes = read_changes(config, settings, short, resume)
    budget_s = duration_s(time_budget) if time_budget else math.inf
    start(
        kind, output, preset, changes,
        resume=resume, time_budget_s=budget_s, workers=process_count(), **options,
    )  # fmt: skip


def read_changes(
    config: Path | None, settings: tuple[str, ...], short: dict[str, Any], resume: bool = False
) -> dict[str, Any]:
    """The settings that --config, --set and the short options name, by dotted name.

    The file of --config gives way to the others. A resumed run's settings stay.
    """
    from medil.config import without_retired
    from medil.dials import flat, read_file, read_settings

    named: dict[str, Any] = dict(read_settings(settings))
    for option, value in short.items():
        if value is not None and SHORT[option] in named:
            raise InputError(f"--{option.replace('_', '-')} and --set name the same setting.")
        if value is not None:
            named[SHORT[option]] = value
    if short["minutes"] is not None and short["steps"] is not None:
        raise InputError("--minutes and --steps both set the length of the run; name only one.")
    if "train.minutes" in named and "train.steps" not in named and not resume:
        named["train.steps"] = 0  # a configuration file may hold a length in steps
    return flat(without_retired(read_file(config))) | named if config else named
