"""The paper's operator and a fixed grid beside ours, each trained for as long on the same heads.

No released weights have these operators. So small autoencoders (`eval.arms.catalogue`) are trained
by the ablation's recipe on synthetic heads of the train split, one CPU thread each.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from eval.ablation.training import TrainingSet, training_heads
from eval.arms import timed
from eval.arms.catalogue import ARMS
from eval.arms.coders import WeightsCoder, run_coder
from eval.arms.timed import LEAST_STEPS, train_for
from eval.arms.train import recipe
from eval.false_gyri.arms import SCALE
from eval.rows import digest
from medil.config import RunConfig

FOLDER = Path("_build/false_gyri")
VERSION = 1  # part of every run's name: raise it when training itself changes
CONTROL = "integrated"
TRIES = {  # arms of the catalogue -> for people
    CONTROL: "integrated LTE (control)",
    "literal": "literal LTE (paper)",
    "conv-1mm": "Conv AE, 1 mm grid",
}


class Run(timed.Run):
    """One training run of a try."""

    @property
    def config(self) -> RunConfig:
        """The arm under the ablation's recipe."""
        return RunConfig("false_gyri", ARMS[self.name], recipe())

    @property
    def digest(self) -> str:
        """SHA-256 of all that the weights depend on."""
        model, settings = asdict(self.config.model), asdict(self.config.train)
        heads = TrainingSet(self.scans, ()).recipe
        more = [VERSION, LEAST_STEPS, self.name, self.seed, self.minutes]
        return digest([model, settings, heads, *more])


def train_all(runs: list[Run], folder: Path = FOLDER) -> None:
    """Train what is not there yet, one after another, so that a stopped command can go on."""
    for run in runs:
        train_for(run, folder, partial(training_heads, run.scans, folder))


def coders(runs: list[Run], folder: Path = FOLDER) -> list[WeightsCoder]:
    """The runs that left weights."""
    made = [run for run in runs if run.path(folder).exists()]
    return [run_coder(run, folder, TRIES[run.name], SCALE) for run in made]
